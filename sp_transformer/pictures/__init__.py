"""Pictures of what a model sees, for evaluation, training and serving alike.

`panels` draws, from NumPy arrays alone (no TensorFlow is imported):

    segmentation_panel(image, prediction, superpixels, label_map, label=None)   the paper's Fig. 4
    detail_panel(image, prediction, superpixels, confidence, label, ignore_label)
                                                            mean colours, errors and confidence
    segmentation_overlay(image, labels, label_map)          classes over the image
    mean_colors(image, superpixels)                         each superpixel in its mean colour
    error_map(label, prediction, ignore_label, image=None)  right, wrong, ignored
    confidence_map(confidence)                              with a colour bar
    association_picture(image, superpixels, association)    the 9 probabilities of one pixel
    assignment_picture(image, assignment)                   the soft map of one superpixel
    attention_picture(image, attention, cell, stride)       one superpixel's attention over the grid

`model_views` asks a built model for the arrays:

    confidence(logits)                                      of `Inference.logits`
    association_of_pixel(model, image, (y, x))
    assignment_of_superpixel(model, image, (row, column))
    attention_of_superpixel(model, image, (row, column), layer=-1, head=None)

The primitives (`colorize`, `blend`, `draw_boundaries`, `side_by_side`, `legend`) are in `data.drawing`; the names and
colours of classes are in configs/label_maps.
"""
