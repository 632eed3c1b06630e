"""The XGBoost container's own programs, as it behaves and not as we would like it to.

``train`` leaves what the container leaves, ``serve`` loads whatever the container would load: no
inspection, no proof. They run in the interpreter that has exactly the container's XGBoost, and need
no more than it has: the standard library, numpy, XGBoost and uvicorn.
"""
