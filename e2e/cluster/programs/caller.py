"""Ask Envoy of the same pod over loopback for some seconds, at most a rate; print statuses and Envoy's own counts.

`caller.py SECONDS RATE [USER]`: one JSON object at the end. It stops by itself.
"""

import collections
import http.client
import json
import sys
import time
import urllib.request


def stats() -> dict:
    """Envoy's counts of the rate-limit filter."""
    with urllib.request.urlopen("http://127.0.0.1:9901/stats?filter=ratelimit&format=json", timeout=10) as answer:
        found = json.load(answer)["stats"]
    return {each["name"].rpartition(".")[2]: each["value"] for each in found if "value" in each}


def main() -> None:
    """Call and count."""
    seconds, rate = float(sys.argv[1]), float(sys.argv[2])
    users = sys.argv[3:] or [f"user-{number}" for number in range(50)]
    before = stats()
    codes: collections.Counter = collections.Counter()
    connection = http.client.HTTPConnection("127.0.0.1", 10000, timeout=10)
    end, sent = time.monotonic() + seconds, 0
    began = time.monotonic()
    while time.monotonic() < end:
        connection.request("GET", "/", headers={"x-user": users[sent % len(users)]})
        answer = connection.getresponse()
        answer.read()
        codes[str(answer.status)] += 1
        sent += 1
        time.sleep(max(0.0, began + sent / rate - time.monotonic()))
    after = stats()
    counts = {name: after[name] - before.get(name, 0) for name in after}
    print(json.dumps({"sent": sent, "codes": codes, "envoy": counts}))


main()
