"""Batches from a stock of clips that several processes fill, for an accelerator that trains faster than one draws.

A group of clips costs one process about the same time, however many it holds, because thousands of small
kernels are started. So every producer draws large groups on the card and hands their latents over, and a batch is drawn
at random from what the last `KEPT` deliveries of its shape hold. Clips stay in the stock for a while and can be met
twice, each time with other noise. Which clips a step gets depends on timing: unlike `pretrain` with a `World` alone,
a run is not repeated bit by bit."""
from collections import deque
import torch
import torch.multiprocessing as mp
from gen2gen.codec import load_codec
from gen2gen.flow import sample_sigma
from gen2gen.pretrain import World

KEPT, AHEAD = 48, 16 # deliveries of the commonest shape in the stock; deliveries that wait

def produce(queue, world, codec_folder, device, seed):
    "Draw clips of one shape after another, forever"
    world.codec, world.bank = load_codec(codec_folder, device=device), world.bank.to(device)
    for step in range(10**9):
        z, _, _, words = world(step, seed)
        queue.put((z.bfloat16().cpu(), words.cpu()))

class Stock:
    "An endless iterator of batches; `with` starts and ends the producers"
    def __init__(self,
        world: World, # its bank on the CPU
        codec_folder, # that the producers load
        device, # of the clips and of the batches
        producers: int=8, # processes
        scale: int=20, # times the clips of `SHAPES` in a batch
        seed: int=0, # of what is drawn; other numbers for other pieces of a run
    ):
        self.world, self.device, self.scale = world, device, scale
        context = mp.get_context('spawn')
        self.queue, self.held = context.Queue(AHEAD), {}
        self.g, self.host = torch.Generator(device).manual_seed(seed), torch.Generator().manual_seed(seed)
        self.processes = [context.Process(target=produce, daemon=True,
                                          args=(self.queue, world, codec_folder, device, 1000*seed+k))
                          for k in range(producers)]
        self.delivered = 0

    def __enter__(self):
        for p in self.processes: p.start()
        return self

    def __exit__(self, *_):
        for p in self.processes: p.kill()

    def take(self):
        "One delivery into the stock"
        z, words = (x.to(self.device, non_blocking=True) for x in self.queue.get())
        shape = z.shape[-1], z.shape[2]
        share = dict(zip([(s//4, f) for s, f, _ in self.world.shapes], self.world.shares))[shape]
        kept = max(4, round(KEPT*share/max(self.world.shares)))
        self.held.setdefault(shape, deque(maxlen=kept)).append((z, words))
        self.delivered += len(z)

    def __iter__(self):
        shapes = [(s//4, f) for s, f, _ in self.world.shapes]
        while len(self.held) < len(shapes) or len(self.held[shapes[0]]) < 12: self.take()
        shares = torch.tensor(self.world.shares)
        while True:
            while not self.queue.empty(): self.take()
            k = int(torch.multinomial(shares, 1, generator=self.host))
            n, held = self.world.shapes[k][2]*self.scale, self.held[shapes[k]]
            parts = [held[i] for i in torch.randint(len(held), (8,), generator=self.host).tolist()]
            rows = [torch.randint(len(z), (n//8,), generator=self.g, device=self.device) for z, _ in parts]
            z = torch.cat([z[r] for (z, _), r in zip(parts, rows)]).float()
            words = torch.cat([w[r] for (_, w), r in zip(parts, rows)])
            yield (z, sample_sigma(len(z), self.g).to(self.device),
                   torch.randn(z.shape, generator=self.g, device=self.device), words)
