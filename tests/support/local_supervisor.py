"""A supervisor in a process of its own, for tests that kill it: python local_supervisor.py FOLDER [SPEC-AS-JSON]

Ends with code 0 when the run succeeded, 6 when somebody else holds it, 7 when the state folder is unusable, 1 otherwise.
SIGTERM stops it, as Ctrl-C stops rlhfctl.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlhf_api.words import Phase
from rlhf_operator.local import RunLocked, StateUnusable
from support.local_runs import LocalWorld


def main() -> int:
    world = LocalWorld(Path(sys.argv[1]))
    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    signal.signal(signal.SIGTERM, lambda *_: world.stop.set())
    try:
        run = world.run(world.manifest(**changes))
    except RunLocked as error:
        print(error, file=sys.stderr)
        return 6
    except StateUnusable as error:
        print(error, file=sys.stderr)
        return 7
    return 0 if run.status is not None and run.status.phase is Phase.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
