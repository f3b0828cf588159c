"""From images to the trained model of a fold."""
