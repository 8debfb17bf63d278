"""The door for ONNX models.

door    node by node through a model                model   its structure, checked
input   its input's shape and order                 fold    its constants, and sizes of the batch
operations, layers, scaling, routes                 its operations by torch's names
"""
