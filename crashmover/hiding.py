# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Hiding variables of the environment from a compiled library that reads all of them by itself."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

_lock = Lock()


@contextmanager
def hidden(
    is_hidden: Callable[[str], bool], shown: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Hide variables from compiled code in this process while the context is entered.

    ``os.environ`` is left as it is, and with it what Python code reads, boto3's in another thread
    for example.  A program that another thread starts at this moment does not get the variables.

    The list of variables that C's ``environ`` points to is replaced by another, in one step.
    ``unsetenv`` and ``setenv`` would change and move the list while another thread reads it.

    :param is_hidden: whether a variable of this name is to be hidden
    :param shown: variables to be there instead
    """
    with _lock:
        pointer = _environ()
        before = pointer.value
        entries = list(_entries(before))
        hides = [_name(entry) for entry in entries if is_hidden(_name(entry))]
        if not hides and not shown:
            yield
            return
        kept = [entry for entry in entries if not is_hidden(_name(entry))]
        kept += [_entry(name, value) for name, value in (shown or {}).items()]
        ours = pointer.value = ctypes.addressof(_list_of(tuple(kept)))
        try:
            yield
        finally:
            if pointer.value == ours:
                pointer.value = before
            else:  # another thread has set a variable meanwhile: the list is a copy of ours
                for name in os.environ.keys() & set(hides):
                    os.putenv(name, os.environ[name])


def _environ() -> ctypes.c_void_p:
    """Return C's variable ``environ`` itself: what is assigned to its value is assigned there."""
    library = ctypes.CDLL(None)
    if sys.platform == "darwin":
        library._NSGetEnviron.restype = ctypes.POINTER(ctypes.c_void_p)
        variable: ctypes.c_void_p = library._NSGetEnviron().contents
        return variable
    return ctypes.c_void_p.in_dll(library, "environ")


def _entries(address: int | None) -> Iterator[int]:
    """Yield the address of each entry of the list at `address`."""
    if address:
        entries = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))
        index = 0
        while entry := entries[index]:
            yield entry
            index += 1


def _name(entry: int) -> str:
    return os.fsdecode(ctypes.string_at(entry).partition(b"=")[0])


def _entry(name: str, value: str) -> int:
    return ctypes.addressof(_buffer(os.fsencode(f"{name}={value}")))


@lru_cache(maxsize=64)
def _buffer(text: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(text)


@lru_cache(maxsize=64)
def _list_of(entries: tuple[int, ...]) -> "ctypes.Array[ctypes.c_void_p]":
    """Return a list of entries; it is kept, as another thread may still be reading it."""
    return (ctypes.c_void_p * (len(entries) + 1))(*entries)
