"""What is done to the data folder of a node that does not run: `leveret verify` and `leveret compact`. No process of a node imports it."""
