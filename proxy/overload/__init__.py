"""What is given up, in which order, before memory or descriptors run out.

``pressure`` decides and is pure; ``resources`` reads, ``heap`` shrinks; ``manager`` joins them and is driven by the
worker's sweeper. What is in force is in ``actions``, which the data path reads.
"""
