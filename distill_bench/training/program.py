"""Programs that are compiled once and then loaded wherever they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh, NamedSharding


class Program:
    """A function that is compiled once, for all devices that will run it.

    Compiling a training step takes seconds. Loading its machine code onto the devices of another
    client takes a fifth of a second, and nothing is traced again.
    """

    def __init__(self, jit: Callable[[Mesh], Any], mesh: Mesh, origin: Program | None = None):
        """
        Args:
          jit: what `jax.jit` returns for the function on the devices of a mesh.
          mesh: the devices that run it.
          origin: the same program on other devices, which compiles it; None to compile it here.
        """
        self._jit, self._mesh, self._origin = jit, mesh, origin
        self._meets_on_cpu = mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
        self._compiled: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def on(self, mesh: Mesh) -> Program:
        """The same program for a mesh of the same shape, with devices of the same kind."""
        return self if mesh == self._mesh else Program(self._jit, mesh, origin=self)

    def compile(self, *args: Any) -> Any:
        """The executable for arguments like these, which may be arrays or their shapes."""
        return self._compiled_for(args)[0]

    def _compiled_for(self, args: tuple[Any, ...]) -> tuple[Any, bool]:
        """The executable, and whether it can be loaded onto other devices."""
        leaves, tree = jax.tree.flatten(args)
        key = tree, tuple((leaf.shape, leaf.dtype, _spec(leaf)) for leaf in leaves)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._load(args) or self._compile_here(args)
            return self._compiled[key]

    def _compile_here(self, args: tuple[Any, ...]) -> tuple[Any, bool]:
        before = _cache_hits()
        compiled = self._jit(self._mesh).lower(*args).compile()
        # XLA loses parts of a program on CPU that is written again after it was read from the
        # cache. On other devices, such a program is read from the cache as well.
        return compiled, _cache_hits() == before

    def _load(self, args: tuple[Any, ...]) -> tuple[Any, bool] | None:
        """The origin's executable on these devices; None if it cannot be loaded there."""
        if self._origin is None:
            return None
        compiled, portable = self._origin._compiled_for(jax.tree.map(self._origin.shape_of, args))
        if not portable:
            return None
        try:
            machine_code = serialize_executable.serialize(compiled)
        except jax.errors.JaxRuntimeError:  # XLA cannot write programs that sort, for example
            return None
        loaded = serialize_executable.deserialize_and_load(
            *machine_code,
            backend=self._mesh.devices.flat[0].client,
            execution_devices=list(self._mesh.devices.flat),
        )
        return loaded, False

    def shape_of(self, leaf: Any) -> jax.ShapeDtypeStruct:
        """Shape and placement of an argument like `leaf`, which may lie on another mesh."""
        spec = _spec(leaf)
        sharding = None if spec is None else NamedSharding(self._mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def __call__(self, *args: Any) -> Any:
        out = self.compile(*args)(*args)
        # XLA's CPU client has a thread for each device. Once more than 32 programs are under way, a
        # launch takes up one of them, and the devices of an earlier program, which wait for each
        # other, may be short of it for ever (jax 0.10.2). So one program runs at a time.
        return jax.block_until_ready(out) if self._meets_on_cpu else out


_thread = threading.local()


def _cache_hits() -> int:
    """How many programs this thread has read from the cache of compiled programs."""
    return getattr(_thread, "hits", 0)


def _count(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _thread.hits = _cache_hits() + 1


jax.monitoring.register_event_listener(_count)


def _spec(leaf: Any) -> Any:
    return getattr(getattr(leaf, "sharding", None), "spec", None)
