"""The data set, its bulk load, and warming."""
