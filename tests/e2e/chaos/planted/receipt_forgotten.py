"""The script asks for no receipt: who holds an order is sold another, and a replay sells again."""

import sys

if "replica" in sys.orig_argv:
    from hashlib import sha1

    from flashsale.lua import scripts

    read = scripts.script.__wrapped__

    def script(name):
        found = read(name)
        if name != "seckill":
            return found
        text = found.text.replace("held and 2 or refusal()", "refusal()")
        assert text != found.text, "the script has another line for that"
        return scripts.Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())

    scripts.script = script
