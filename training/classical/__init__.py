"""Classical segmentation from the same prompts, for comparison: thresholds, watershed, random walker and the like.

Every method gets the prompt and the image, never the truth. Which method is reported for a set is chosen with the
truth, the best of all for every set and prompt, so the comparison favours them. Images are uint8 (H, W) or
(H, W, 3), masks bool (H, W); colour images are turned into the grey image along which their pixels vary most.
"""
