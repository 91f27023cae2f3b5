"""The WSGI application that granian serves."""

import os
import sys

from django.core.wsgi import get_wsgi_application

# Whoever holds the account's lock waits for the database a dozen times, and each time behind the
# threads that compute meanwhile: they let go ten times as soon as Python would have them
# (`make bench`, 8 callers: a third less time).
sys.setswitchinterval(0.0005)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
application = get_wsgi_application()
