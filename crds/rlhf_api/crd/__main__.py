"""`python -m rlhf_api.crd`."""

import sys

from .build import main

sys.exit(main())
