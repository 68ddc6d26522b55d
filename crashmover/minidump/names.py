# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The names of numbers in a minidump: systems, processors, and reasons of crashes.

Source: Breakpad, ``google_breakpad/common/minidump_format.h`` and ``minidump_exception_*.h``,
which quote the headers of each system.
"""


def _numbered(names: str) -> dict[int, str]:
    return dict(enumerate(names.split(), start=1))


SYSTEMS = {
    0: "Windows 3.1",
    1: "Windows 9x",
    2: "Windows NT",
    3: "Windows CE",
    0x8000: "Unix",
    0x8101: "Mac OS X",
    0x8102: "iOS",
    0x8201: "Linux",
    0x8202: "Solaris",
    0x8203: "Android",
    0x8204: "PS3",
    0x8205: "NaCl",
    0x8206: "Fuchsia",
}

CPUS = {
    0: "x86",
    1: "mips",
    3: "ppc",
    5: "arm",
    6: "ia64",
    9: "amd64",
    10: "x86",  # on a system of 64 bits
    12: "arm64",
    0x8001: "sparc",
    0x8002: "ppc64",
    0x8003: "arm64",
    0x8004: "mips64",
    0x8005: "loongarch64",
}

_WINDOWS = {
    0x40010005: "DBG_CONTROL_C",
    0x80000001: "EXCEPTION_GUARD_PAGE",
    0x80000002: "EXCEPTION_DATATYPE_MISALIGNMENT",
    0x80000003: "EXCEPTION_BREAKPOINT",
    0x80000004: "EXCEPTION_SINGLE_STEP",
    0xC0000005: "EXCEPTION_ACCESS_VIOLATION",
    0xC0000006: "EXCEPTION_IN_PAGE_ERROR",
    0xC0000008: "EXCEPTION_INVALID_HANDLE",
    0xC000001D: "EXCEPTION_ILLEGAL_INSTRUCTION",
    0xC0000025: "EXCEPTION_NONCONTINUABLE_EXCEPTION",
    0xC0000026: "EXCEPTION_INVALID_DISPOSITION",
    0xC000008C: "EXCEPTION_BOUNDS_EXCEEDED",
    0xC000008D: "EXCEPTION_FLT_DENORMAL_OPERAND",
    0xC000008E: "EXCEPTION_FLT_DIVIDE_BY_ZERO",
    0xC000008F: "EXCEPTION_FLT_INEXACT_RESULT",
    0xC0000090: "EXCEPTION_FLT_INVALID_OPERATION",
    0xC0000091: "EXCEPTION_FLT_OVERFLOW",
    0xC0000092: "EXCEPTION_FLT_STACK_CHECK",
    0xC0000093: "EXCEPTION_FLT_UNDERFLOW",
    0xC0000094: "EXCEPTION_INT_DIVIDE_BY_ZERO",
    0xC0000095: "EXCEPTION_INT_OVERFLOW",
    0xC0000096: "EXCEPTION_PRIV_INSTRUCTION",
    0xC00000FD: "EXCEPTION_STACK_OVERFLOW",
    0xC0000194: "EXCEPTION_POSSIBLE_DEADLOCK",
    0xC0000374: "STATUS_HEAP_CORRUPTION",
    0xC0000409: "STATUS_STACK_BUFFER_OVERRUN",
    0xE0000008: "Out of Memory",
    0xE06D7363: "Unhandled C++ Exception",
    0x0517A7ED: "Simulated Exception",
}
TOUCHING = (0xC0000005, 0xC0000006)
"""On Windows: what happens when memory is touched, and says by its parameters how and where."""

_ACCESSES = {0: "READ", 1: "WRITE", 8: "EXEC"}

_SIGNALS = {
    **_numbered(
        "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2"
        " SIGPIPE SIGALRM SIGTERM SIGSTKFLT"
    ),
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
    0xFFFFFFFF: "DUMP_REQUESTED",
}
_SIGNAL_CODES = {
    "SIGILL": "ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC",
    "SIGBUS": "BUS_ADRALN BUS_ADRERR BUS_OBJERR BUS_MCEERR_AR BUS_MCEERR_AO",
    "SIGFPE": "FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV",
    "SIGSEGV": "SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR",
}

_MACH = {
    **_numbered(
        "EXC_BAD_ACCESS EXC_BAD_INSTRUCTION EXC_ARITHMETIC EXC_EMULATION EXC_SOFTWARE"
        " EXC_BREAKPOINT EXC_SYSCALL EXC_MACH_SYSCALL EXC_RPC_ALERT"
    ),
    0x43507378: "Simulated Exception",
    0x43506E78: "Uncaught NSException",
}
_MACH_CODES = {
    1: "KERN_INVALID_ADDRESS",
    2: "KERN_PROTECTION_FAILURE",
    8: "KERN_NO_ACCESS",
    9: "KERN_MEMORY_FAILURE",
    10: "KERN_MEMORY_ERROR",
    50: "KERN_CODESIGN_ERROR",
}


def reason(system: str | None, code: int, flags: int, parameter: int | None) -> str:
    """Return the name of a crash's reason; its number, where it has no name.

    :param system: as `SYSTEMS` calls it
    :param flags: what tells more of it, on other systems than Windows
    :param parameter: what tells more of it on Windows
    """
    number = f"0x{code:08x}"
    if system in ("Linux", "Android"):
        name = _SIGNALS.get(code, number)
        return _both(name, _numbered(_SIGNAL_CODES.get(name, "")).get(flags))
    if system in ("Mac OS X", "iOS"):
        name = _MACH.get(code, number)
        return _both(name, _MACH_CODES.get(flags) if name == "EXC_BAD_ACCESS" else None)
    if not (system and system.startswith("Windows")):
        return number
    name = _WINDOWS.get(code, number)
    access = _ACCESSES.get(parameter) if parameter is not None else None
    return f"{name}_{access}" if access and code in TOUCHING else name


def _both(name: str, more: str | None) -> str:
    return f"{name} / {more}" if more else name
