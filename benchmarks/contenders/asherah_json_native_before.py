"""The same contender, with this package as it was before values were opened lazily."""

from contenders.asherah_json import *
