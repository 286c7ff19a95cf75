"""SAM 2.1 for scientific images: model, predictors, volumes and the command line."""
