"""What the datasets share: finding folders, splits, few-shot draws, class names, miniatures."""
