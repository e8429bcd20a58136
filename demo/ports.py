#!/usr/bin/env python3
"""ports.py N: N port numbers of 127.0.0.1 that are free, for TCP and UDP.

From below the range that the kernel gives to outgoing connections, so that
they stay free while a server of ours is down.
"""
import random
import socket
import sys


def free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def main():
    wanted, found = int(sys.argv[1]), []
    for port in random.sample(range(15000, 32000), 2000):
        if len(found) == wanted:
            break
        if free(port):
            found.append(port)
    if len(found) < wanted:
        sys.exit("ports.py: no free ports")
    print(*found)


if __name__ == "__main__":
    main()
