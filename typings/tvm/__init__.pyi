# TVM's annotations contradict how TVM is used: its objects come out of C++ by reflection, te.compute is said to return
# one tensor where it may return several, a schedule's loops do not fit the methods that take loops. So to the type
# checker all of TVM is Any, here and in the modules below that the package imports by name.
from typing import Any

def __getattr__(name: str) -> Any: ...
