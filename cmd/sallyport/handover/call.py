"""Calls the gateway with a signed request, and prints the answer once it is verified.

    python3 -m venv venv
    venv/bin/pip install -r requirements.txt
    venv/bin/python call.py [URL]
"""
import os
import sys

import requests

from sallyport_client import NotVerified, Refused, SallyportAuth

URL = "@URL@"
KEY_ID = "@KEY_ID@"
SECRET = "@SECRET@"

here = os.path.dirname(os.path.abspath(__file__))
root, published = os.path.join(here, "root.pem"), os.path.join(here, "gateway-keys.json")
auth = SallyportAuth.from_file(KEY_ID, os.path.join(here, SECRET), open(published).read() if os.path.exists(published) else None)
try:
    answer = requests.post(sys.argv[1] if len(sys.argv) > 1 else URL, json={"instances": [1.0, 2.0, 5.0]}, auth=auth,
                           verify=root if os.path.exists(root) else True, allow_redirects=False, timeout=60)
except Refused as e:  # e.code is the gateway's reason, such as stale if your clock is wrong
    sys.exit("refused: %s" % e)
except NotVerified as e:
    sys.exit("do not act on this answer: %s" % e)
except requests.exceptions.SSLError as e:
    sys.exit("the gateway's certificate is not trusted; root.pem beside this program says whom to trust: %s" % e)
except requests.exceptions.ConnectionError as e:
    sys.exit("could not reach the gateway: %s" % e)
except requests.exceptions.Timeout as e:
    sys.exit("no answer in time: %s" % e)
print(answer.status_code)
print(answer.text)
