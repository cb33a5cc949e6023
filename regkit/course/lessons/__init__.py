"""What single tutorials show: tNN_topic has the views of tutorials/NN_topic.py, the others are of several."""
