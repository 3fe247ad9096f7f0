"""Runs a program under the system-call rules of the unit, as there is no systemd in the tests.

under_unit_filter.py CALLS PROGRAM ARGUMENT…

CALLS is a file with the names of the calls that are allowed, one a line. Beside them, as in the unit: sockets of three
address families only, and no memory that can be written and executed. Every other call ends the process, so that a test
sees it.
"""

import os
import sys

import seccomp

PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6

calls, program = sys.argv[1], sys.argv[2:]
rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
with open(calls) as names:
    allowed = set(names.read().split())
for name in sorted(allowed - {"socket", "mmap", "mprotect"}):
    try:
        rules.add_rule(seccomp.ALLOW, name)
    except (ValueError, RuntimeError):
        pass  # Not a call of this processor.
for family in FAMILIES:
    rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, family))
# glibc asks for the addresses of the machine, and does without.
rules.add_rule(seccomp.ERRNO(97), "socket", seccomp.Arg(0, seccomp.EQ, 16))
for flag in (PROT_WRITE, PROT_EXEC):
    rules.add_rule(seccomp.ALLOW, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, flag, 0))
rules.add_rule(seccomp.ALLOW, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
rules.load()
os.execv(program[0], program)
