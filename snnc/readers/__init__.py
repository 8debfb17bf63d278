"""NIR files that snnc wrote, in the simulators of others, with snnc's spikes.

    net = snnc.readers.sinabs("net.nir")
    logits = net(x)                      # the readout: what `snnc.load("net.snn")(x)` gives
    outputs, spikes = net.run(x)         # of each step, and of each layer of neurons
    net.record("sinabs.npz", x)          # for `snnc verify net.snn sinabs.npz`

Each reads the file with the simulator's own importer, and makes the settings for which NIR has no field: reset
by subtraction, the potential at the start, one spike a step, a spike where the potential reaches the threshold.
"""

from snnc.readers.foreign import Foreign
from snnc.readers.simulators import Norse, Sinabs, SnnTorch, SpikingJelly

spikingjelly, sinabs, snntorch, norse = SpikingJelly, Sinabs, SnnTorch, Norse

__all__ = ["Foreign", "norse", "sinabs", "snntorch", "spikingjelly"]
