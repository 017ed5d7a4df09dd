"""What pinfold costs, measured on the machine at hand.

Times of two machines, or of two runs on one, do not compare: other load, other clocks, other
caches. So nothing here is a time alone. Ways to do the same work take turns, in another order each
round (``measure``), and each figure is set against another one of the same round.

What is asserted is that the work was done. A call that failed quickly would be a fine figure.
"""
