"""From a spiking network of real numbers to one of integers.

`prepare` brings a graph into a form in which every operation can be one on integers, `populations` chooses grids,
`rounding` rounds weights, and `lowering` walks through the graph and does it. `snnc.ir.proof` proves the result, and
knows none of these.
"""
