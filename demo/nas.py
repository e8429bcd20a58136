#!/usr/bin/env python3
"""nas.py: the network access servers of the demonstration, by radclient.

    nas.py WORK acct RECORD GROUP[:FROM-TO] SERVER [SERVER]   RECORD: Start, Interim, Stop, Again, Late
    nas.py WORK auth USER[-USER] SERVER [SERVER]     log in (every tenth with a wrong password)
    nas.py WORK show USER SERVER                     the reply of one login
    nas.py WORK forget SERVER                        forget that SERVER did not answer

A session belongs to a group, a letter; its place in the group gives its user,
its port and its NAS.  A record goes to the first server named; a client that
gets no answer sends the same record to the second one, and from then on asks
the silent server no more, as equipment does that marks a server dead.

WORK/servers says "name auth_port acct_port" per line.  Everything that was
sent, and which server answered, is added to WORK/ledger, a JSON object per
line: that is what the proof at the end starts from.  Again repeats a session's
last record, Late repeats its last Interim after its Stop.

Exit status 1 if a record was answered by nobody.

NAS_CHUNK: records on the way at once, at most 200.  NAS_RATE: records sent per
second at most.  NAS_PATIENCE: seconds to wait for the last server named.
NAS_TELL="COUNT FIFO": a line is written to FIFO once COUNT are answered.
"""
import atexit
import json
import os
import re
import selectors
import subprocess
import sys
import time

SECRET = "testing123"
CHUNK = int(os.environ.get("NAS_CHUNK", 25))
RATE = ["-n", os.environ["NAS_RATE"]] if "NAS_RATE" in os.environ else []
PATIENCE = 1.5          # seconds without any answer: try the other server
LONG_PATIENCE = float(os.environ.get("NAS_PATIENCE", 15))      # the same when there is no other server
BEGIN = 1_790_000_000   # when the first session of all began
STEP = 300              # seconds from one record of a session to the next


class Ledger:
    def __init__(self, work):
        self.path = os.path.join(work, "ledger")
        self.sessions = {}
        if os.path.exists(self.path):
            with open(self.path) as f:
                for line in f:
                    entry = json.loads(line)
                    if entry["kind"] == "acct":
                        self.sessions.setdefault(entry["session"], []).append(entry)

    def add(self, entries):
        # One write for each: two of us may be at work at the same time.
        with open(self.path, "a") as f:
            for entry in entries:
                f.write(json.dumps(entry) + "\n")
                f.flush()


class Tell:
    """Says once that so many records are answered."""
    def __init__(self, wish):
        count, _, self.path = wish.partition(" ")
        self.left = int(count or 0)     # below 1: nobody waits any more

    def answered(self):
        self.left -= 1
        if self.left == 0:
            self.now()

    def now(self):
        with open(self.path, "w") as fifo:
            fifo.write("now\n")

    def end(self):
        """Whoever waits for it is not to wait for ever."""
        if self.left > 0:
            self.now()


TELL = Tell(os.environ.get("NAS_TELL", ""))
atexit.register(TELL.end)


def packet(attributes):
    return ",".join("%s=%s" % pair for pair in attributes.items())


def radclient(work, server, kind, packets, label, patience):
    """Send packets, a list of (label value, attributes), at once.

    Returns {label value: (answer, reply attributes)} for those answered.
    """
    name, auth, acct = server
    port = auth if kind == "auth" else acct
    client = subprocess.Popen(
        ["stdbuf", "-oL", "radclient", "-x", "-d", os.path.join(work, name, "raddb"),
         "-p", str(len(packets)), "-t", "3", "-r", "10", *RATE,
         "127.0.0.1:" + port, kind, SECRET],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, bufsize=0)
    # radclient wants to read all before it sends anything
    client.stdin.write(("\n\n".join(packet(attributes) for _, attributes in packets)
                        + "\n").encode())
    client.stdin.close()

    by_id, answers, here, text = {}, {}, None, b""
    waiting = selectors.DefaultSelector()
    waiting.register(client.stdout, selectors.EVENT_READ)
    last = time.monotonic()
    while True:
        if not waiting.select(0.1):
            if time.monotonic() - last > patience:
                break
            continue
        data = os.read(client.stdout.fileno(), 65536)
        if not data:
            break
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            line = line.decode("utf-8", "replace")
            sent = re.match(r"Sent \S+ Id (\d+) ", line)
            got = re.match(r"Received (\S+) Id (\d+) ", line)
            attribute = re.match(r"\t([\w-]+) = (.*)", line)
            if sent:
                here = ("sent", sent.group(1))
            elif got:
                last = time.monotonic()
                here = ("got", got.group(2))
                value = by_id[got.group(2)]
                answers[value] = (got.group(1), {})
                TELL.answered()
            elif attribute and here and here[0] == "sent":
                if attribute.group(1) == label:
                    by_id[here[1]] = attribute.group(2).strip('"')
            elif attribute and here:
                answers[by_id[here[1]]][1][attribute.group(1)] = attribute.group(2)
            elif not line.startswith("\t"):
                here = None
        if len(answers) == len(packets):
            # let the last answer's attributes come
            if kind == "acct":
                break
    client.kill()
    client.stdout.close()
    client.wait()
    return answers


def send(work, servers, kind, packets, label):
    """Send to the first server, what is left to the second.

    Yields (packet, server name, answer or None) in the order sent.
    """
    for i in range(0, len(packets), CHUNK):
        left = packets[i:i + CHUNK]
        for n, server in enumerate(servers):
            dead = os.path.join(work, "dead-" + server[0])
            last = n + 1 == len(servers)
            if not left or (not last and os.path.exists(dead)):
                continue
            answers = radclient(work, server, kind, left, label,
                                LONG_PATIENCE if last else PATIENCE)
            for one in left:
                yield one[0], server[0], answers.get(one[0])
            left = [one for one in left if one[0] not in answers]
            if left and not last:
                open(dead, "w").close()


def numbers(session, step):
    """What a session has used when it sends its step-th record."""
    letter, place = session[0], int(session[2:])
    seconds = STEP * step
    return {"event": BEGIN + (ord(letter) - ord("A")) * 3600 + place * 7 + seconds,
            "time": seconds,
            "in": seconds * (1000 + place),
            "out": seconds * (9000 + 3 * place)}


def record(session, user, status, step):
    place = int(session[2:])
    use = numbers(session, step)
    attributes = {
        "User-Name": user,
        "Acct-Session-Id": session,
        "Acct-Status-Type": {"Interim": "Interim-Update"}.get(status, status),
        "NAS-IP-Address": "10.0.0.%d" % (place % 5 + 1),
        "NAS-Port": place,
        "NAS-Port-Type": "Ethernet",
        "Framed-IP-Address": "172.16.%d.%d" % (ord(session[0]), place % 250 + 1),
        "Acct-Authentic": "RADIUS",
        "Event-Timestamp": use["event"]}
    if status != "Start":
        attributes.update({"Acct-Session-Time": use["time"],
                           "Acct-Input-Octets": use["in"],
                           "Acct-Output-Octets": use["out"]})
    if status == "Stop":
        attributes["Acct-Terminate-Cause"] = "User-Request"
    return attributes


def accounting(work, what, group, servers):
    ledger = Ledger(work)
    letter, _, places = group.partition(":")
    first, _, to = places.partition("-")
    entries, packets = {}, []
    for place in range(int(first), int(to) + 1):
        session = "%s-%03d" % (letter, place)
        past = ledger.sessions.get(session, [])
        if what in ("Start", "Interim", "Stop"):
            status = what
            step = past[-1]["step"] + 1 if past else 0
        else:
            before = [p for p in past
                      if what == "Again" or p["status"] == "Interim"][-1]
            status, step = before["status"], before["step"]
        user = "user%03d" % ((ord(letter) * 37 + place) % 300 + 1)
        entries[session] = dict(kind="acct", session=session, user=user,
                                status=status, step=step, late=what == "Late",
                                **numbers(session, step))
        packets.append((session, record(session, user, status, step)))

    answered, by = set(), {}
    for session, server, answer in send(work, servers, "acct", packets,
                                        "Acct-Session-Id"):
        entry = dict(entries[session], server=server, answer=answer and answer[0],
                     at=time.time())
        ledger.add([entry])
        if answer and answer[0] == "Accounting-Response":
            answered.add(session)
            by[server] = by.get(server, 0) + 1
    report(what, "sessions " + letter, len(packets), by)
    return len(answered) == len(packets)


def logins(work, users, servers):
    first, _, to = users.partition("-")
    mark = time.time_ns() // 1000
    packets, entries = [], {}
    for n in range(int(first), int(to or first) + 1):
        right = n % 10 != 0
        call = "%d-%03d" % (mark, n)
        password = "secret%03d" % n if right else "wrong-" + call
        entries[call] = dict(kind="auth", user="user%03d" % n, password=password,
                             expected="Access-Accept" if right else "Access-Reject")
        packets.append((call, {"User-Name": "user%03d" % n, "User-Password": password,
                               "NAS-IP-Address": "10.0.0.1", "NAS-Port": n,
                               "Calling-Station-Id": call}))
    good, by = set(), {}
    for call, server, answer in send(work, servers, "auth", packets,
                                     "Calling-Station-Id"):
        entry = dict(entries[call], server=server, answer=answer and answer[0],
                     at=time.time())
        Ledger(work).add([entry])
        if answer and answer[0] == entry["expected"]:
            good.add(call)
            by[server] = by.get(server, 0) + 1
    report("Login", "users", len(packets), by)
    return len(good) == len(packets)


def show(work, user, server):
    call = "%d-show" % (time.time_ns() // 1000)
    password = "secret" + user[4:]
    packets = [(call, {"User-Name": user, "User-Password": password,
                       "NAS-IP-Address": "10.0.0.1", "Calling-Station-Id": call})]
    for _, name, answer in send(work, [server], "auth", packets,
                                "Calling-Station-Id"):
        Ledger(work).add([dict(kind="auth", user=user, password=password,
                               expected="Access-Accept", server=name,
                               answer=answer and answer[0], at=time.time())])
        if answer:
            print(answer[0], ", ".join("%s = %s" % pair
                                       for pair in sorted(answer[1].items())))
            return answer[0] == "Access-Accept"
    print("no answer")
    return False


def report(what, whose, sent, by):
    print("   %-8s %4d %-10s  answered: %s" %
          (what, sent, whose, ", ".join("%d by %s" % (by[name], name)
                                        for name in sorted(by)) or "none"))


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    work, verb = sys.argv[1:3]
    known = {}
    with open(os.path.join(work, "servers")) as f:
        for line in f:
            known[line.split()[0]] = line.split()
    if verb == "forget":
        dead = os.path.join(work, "dead-" + sys.argv[3])
        if os.path.exists(dead):
            os.unlink(dead)
        return 0
    if verb == "acct":
        good = accounting(work, sys.argv[3], sys.argv[4],
                          [known[name] for name in sys.argv[5:]])
    elif verb == "auth":
        good = logins(work, sys.argv[3], [known[name] for name in sys.argv[4:]])
    elif verb == "show":
        good = show(work, sys.argv[3], known[sys.argv[4]])
    else:
        sys.exit(__doc__)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
