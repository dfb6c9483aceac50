"""An evaluation as one self-contained HTML file: numbers, classes, confusions and pictures, for people.

    pictures.py   keeps the images that are shown while the split passes by, in bounded memory and bounded bytes
    charts.py     drawings as inline SVG
    sections.py   what stands in each section, everything escaped (MarkupSafe)
    page.py       all of it in one string, with report.html as the frame, report.css and report.js

The page asks for nothing else: a content security policy in it forbids any request.
"""
