"""All settings in one typed file, read from the environment (names and defaults: the README).

Never holds a secret: keys come from the environment and are read where they are used.
"""

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Literal, cast

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from ordinis.broker.data_host import data_url

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("ORDINIS_VAR_DIR", BASE_DIR / "var"))


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in {"1", "yes", "true", "on"}:
        return True
    if value in {"0", "no", "false", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} is {value!r}; write yes or no.")


def _seconds(name: str, default: float, *, unit: str = "seconds") -> float:
    text = os.environ.get(name, "").strip() or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 86_400:
        raise ImproperlyConfigured(f"{name} is {text!r}; write a number of {unit} above 0.")
    return value


def _list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in os.environ.get(name, default).split(",") if item.strip()]


def _development_key() -> str:
    """Made once for this folder, so that sessions survive a restart."""
    key_file = VAR_DIR / "development-secret-key"
    if not key_file.exists():
        try:
            VAR_DIR.mkdir(parents=True, exist_ok=True)
            temporary = VAR_DIR / f".development-secret-key.{os.getpid()}"
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_urlsafe(50))
        except OSError as error:
            raise ImproperlyConfigured(
                f"{VAR_DIR} can't be written ({error.strerror}). Everything that Ordinis keeps is "
                "there: make it writable, or set ORDINIS_VAR_DIR to another folder."
            ) from error
        # The first process wins, whole or not at all.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, key_file)
        temporary.unlink()
    return key_file.read_text()


# --- The broker ---------------------------------------------------------------------------

ORDINIS_BROKER = os.environ.get("ORDINIS_BROKER", "simulator")
if ORDINIS_BROKER not in {"simulator", "alpaca"}:
    raise ImproperlyConfigured(
        f"ORDINIS_BROKER is {ORDINIS_BROKER!r}; this version knows simulator and alpaca."
    )
ON_SIMULATOR = ORDINIS_BROKER == "simulator"
PORT = int(os.environ.get("PORT", "8000"))
# The simulator listens beside the web process unless it is told otherwise.
SIMULATOR_PORT = int(os.environ.get("ORDINIS_SIMULATOR_PORT", str(PORT + 1)))

ALPACA_PAPER_URL = "https://paper-api.alpaca.markets"
ALPACA_LIVE_URL = "https://api.alpaca.markets"
BROKER_URL = os.environ.get("APCA_API_BASE_URL", "").rstrip("/").removesuffix("/v2") or (
    f"http://127.0.0.1:{SIMULATOR_PORT}" if ON_SIMULATOR else ALPACA_PAPER_URL
)
Mode = Literal["simulated", "paper", "live"]
# Deny when in doubt: whatever is neither the simulator, nor Alpaca's paper host, nor this
# very machine counts as live.
_LOOPBACK = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
BROKER_MODE: Mode = (
    "simulated"
    if ON_SIMULATOR
    else "paper"
    if BROKER_URL == ALPACA_PAPER_URL or BROKER_URL.startswith(_LOOPBACK)
    else "live"
)
if ON_SIMULATOR and not BROKER_URL.startswith(_LOOPBACK):
    raise ImproperlyConfigured(
        f"ORDINIS_BROKER is simulator, but APCA_API_BASE_URL is {BROKER_URL}. "
        "Set ORDINIS_BROKER=alpaca to trade there, or leave APCA_API_BASE_URL out."
    )
if BROKER_MODE == "live" and not _flag("ORDINIS_LIVE_TRADING", default=False):
    raise ImproperlyConfigured(
        f"APCA_API_BASE_URL is {BROKER_URL}, where orders use real money. Set "
        "ORDINIS_LIVE_TRADING=yes to trade live on purpose, or use "
        f"{ALPACA_PAPER_URL} for paper trading."
    )
# Where quotes are asked for; empty: what belongs to BROKER_URL (ordinis.broker.data_host). The
# simulator's market is its own, whatever the environment has for Alpaca.
DATA_URL = (
    "" if ON_SIMULATOR else os.environ.get("APCA_API_DATA_URL", "").rstrip("/").removesuffix("/v2")
)
try:
    data_url(BROKER_URL, given=DATA_URL)
except ValueError as error:
    raise ImproperlyConfigured(f"APCA_API_DATA_URL can't be used. {error}") from error
BROKER_TIMEOUT = _seconds("ORDINIS_BROKER_TIMEOUT", 10)  # seconds for one broker call
POLL_SECONDS = _seconds("ORDINIS_POLL_SECONDS", 15)
RECONCILE_SECONDS = _seconds("ORDINIS_RECONCILE_SECONDS", 30)

# Broker figures older than this are asked for again before an order is judged (DESIGN, step 2).
FIGURES_MAX_AGE = 1.0
# How long before a snapshot was asked for an order must have been acknowledged for the snapshot
# to be trusted to contain it.
ACKNOWLEDGEMENT_MARGIN = 1.0
# An order whose answer was lost is only sent again while it is younger than this.
RESEND_MAX_AGE = 60.0
# A difference between book and broker is looked at again after this long before it is a break.
SECOND_LOOK_SECONDS = 10.0
CORRECTION_EXPIRES_HOURS = 24
# How long the broker's raw answers are kept that comparisons rest on.
EVIDENCE_DAYS = _seconds("ORDINIS_EVIDENCE_DAYS", 14, unit="days")
# An open break that nobody sees to, or that outlasts its acknowledgement, escalates after so
# long.
BREAK_ESCALATES_CRITICAL_MINUTES = 15
BREAK_ESCALATES_WARNING_MINUTES = 240
STREAM_MESSAGE_DAYS = 14  # how long the stream's messages are kept
# A stream whose other end has gone silent is given up after the two together, in seconds.
STREAM_PING_INTERVAL = 3.0
STREAM_PING_TIMEOUT = 6.0
# The broker's history of events counts as read to its end when nothing came for so long.
STREAM_QUIET_SECONDS = 1.0
STREAM_DOWN_SECONDS = 15.0  # after which a stream that is down is an alert

# --- Alerts ---------------------------------------------------------------------------------
# Addresses carry tokens: ORDINIS_ALERT_URLS and ORDINIS_HEARTBEAT_URL are read where they are used.

ALERT_RULES = os.environ.get("ORDINIS_ALERT_RULES", "")
# A problem that stands is told again after this long, in minutes.
ALERT_REPEAT_MINUTES = _seconds("ORDINIS_ALERT_REPEAT_MINUTES", 240, unit="minutes")
ALERT_REPEAT_MINUTES_CRITICAL = _seconds(
    "ORDINIS_ALERT_REPEAT_MINUTES_CRITICAL", 60, unit="minutes"
)
# A warning that comes back sooner than this after it was told waits to see whether it stays.
ALERT_QUIET_MINUTES = 10
# What is due on a channel within this time goes into one message.
ALERT_BATCH_SECONDS = _seconds("ORDINIS_ALERT_BATCH_SECONDS", 5)
# The console's address for people, for links in messages; empty: no links.
CONSOLE_URL = os.environ.get("ORDINIS_CONSOLE_URL", "").rstrip("/")
ALERT_RUN_SECONDS = 10.0  # the longest a run waits for its channels
ALERT_BACKOFF = (10.0, 60.0, 300.0, 900.0)  # seconds until a channel that failed is tried again
ALERT_ATTEMPTS = 10  # after which a message has failed for good
ALERT_CHANNEL_DEAD_AFTER = 3  # failures in a row
PROCESS_SILENT_SECONDS = 30.0  # after which a process without a sign of life is an alert

# --- Django -------------------------------------------------------------------------------

DEBUG = _flag("DEBUG", default=False)
SECRET_KEY = os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    if not ON_SIMULATOR:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Outside the simulator Ordinis needs one of its own: "
            "python -c 'import secrets; print(secrets.token_urlsafe(50))'"
        )
    SECRET_KEY = _development_key()

ALLOWED_HOSTS = _list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _list("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "ordinis",
    "ordinis.accounts",
    "ordinis.alerts",
    "positions",
    "risk",
    "orders",
    "reconciliation",
    "ordinis.console",
    "ordinis.console.apps.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_htmx",
    "ninja",  # its own copy of the API page's scripts: nothing is loaded from elsewhere
    "django_q",
]

MIDDLEWARE = [
    "ordinis.logging.CorrelationMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "ordinis.urls"
WSGI_APPLICATION = "ordinis.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database: PostgreSQL, embedded unless DATABASE_URL names another -------------------------

DATABASE_URL = os.environ.get("DATABASE_URL", "")
_database: dict[str, Any] = (
    dict(dj_database_url.parse(DATABASE_URL))
    if DATABASE_URL
    else {"ENGINE": "ordinis.database", "NAME": "ordinis", "USER": "postgres"}
)
if DATABASE_URL and _database.get("ENGINE") != "django.db.backends.postgresql":
    raise ImproperlyConfigured(
        "DATABASE_URL does not name a PostgreSQL database (postgres://…), the only kind "
        "Ordinis runs on. Leave it out to use the embedded one."
    )
_database["CONN_MAX_AGE"] = 300
_database["CONN_HEALTH_CHECKS"] = True
_database.setdefault("OPTIONS", {}).update(
    {
        # No lock is held across the network, so a long wait is a fault: say so, do not hang.
        "options": "-c lock_timeout=15s -c idle_in_transaction_session_timeout=60s",
        "application_name": f"ordinis {' '.join(sys.argv[1:2])}".strip(),
    }
)
DATABASES = {"default": _database}

# --- Periodic work: Celery with REDIS_URL, else django-q2 on the database -------------------

REDIS_URL = os.environ.get("REDIS_URL", "")
Q_CLUSTER: dict[str, Any] = {
    "name": "ordinis",
    "orm": "default",
    "workers": 2,
    "timeout": 60,
    "retry": 120,
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "poll": 0.2,
    "save_limit": 200,
    "label": "Task queue",
    "scheduler": False,  # its own clock ticks every 30 s, too slow for the poll
}

# --- Console ---------------------------------------------------------------------------------

LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
SESSION_COOKIE_AGE = 12 * 60 * 60
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
_HTTPS = _flag("ORDINIS_HTTPS", default=False)  # behind a proxy that ends TLS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _HTTPS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
}

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "ordinis" / "console" / "assets"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG or "pytest" in sys.modules
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG or "pytest" in sys.modules

LANGUAGE_CODE = "en-us"
TIME_ZONE = "America/New_York"  # exchange time, in the console; stored and sent as UTC
USE_I18N = False
USE_TZ = True
USE_THOUSAND_SEPARATOR = True

# --- Logs --------------------------------------------------------------------------------------

LOG_DIR = VAR_DIR / "log"
# Tests, and what they start, keep no order log but in a var folder of their own.
_IN_A_TEST = "PYTEST_VERSION" in os.environ and "ORDINIS_VAR_DIR" not in os.environ
LOGGING = cast(
    dict[str, Any],
    {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"ordinis": {"()": "ordinis.logging.ContextFilter"}},
        "formatters": {
            "line": {"()": "ordinis.logging.LineFormatter"},
            "json": {"()": "ordinis.logging.JsonFormatter"},
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "filters": ["ordinis"],
                "formatter": "line",
                "level": "INFO",
            },
            "orders": {
                "()": "ordinis.logging.LineFile",
                "path": LOG_DIR / "orders.jsonl",
                "filters": ["ordinis"],
                "formatter": "json",
            },
        },
        "root": {"handlers": ["console"], "level": "INFO"},
        "loggers": {
            "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            "alpaca": {"level": "WARNING"},
            "apscheduler": {"level": "WARNING"},
            "django-q": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            # The order log (ordinis.broker.order_log); the queries in it are for the file alone.
            "ordinis.broker.calls": {
                "handlers": ["console"] if _IN_A_TEST else ["console", "orders"],
                "level": "DEBUG",
                "propagate": False,
            },
        },
    },
)
