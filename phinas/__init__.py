"""Search for a small ConvNet under a compute budget, search how to scale it, and generate the family."""

# Two functions are called like the packages of their commands. The packages come first: once they are imported, no
# later import of something in them puts them in the functions' place.
import phinas.generate
import phinas.train  # noqa: F401
from phinas.api.generate import Family, generate
from phinas.api.grid import GridResult, grid
from phinas.api.search import Candidate, SearchResult, search
from phinas.api.train import Training, train
from phinas.files.errors import InputError, RunFailed

__version__ = "0.2.0"
__all__ = [
    "Candidate",
    "Family",
    "GridResult",
    "InputError",
    "RunFailed",
    "SearchResult",
    "Training",
    "generate",
    "grid",
    "search",
    "train",
]
