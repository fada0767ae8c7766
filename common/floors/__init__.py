"""What does the hardware allow, so that a result can be compared with the best possible one?"""
