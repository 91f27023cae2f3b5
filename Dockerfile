# One image for every process; docker-compose.yml says which command each runs.
# Nothing is copied but what is named here, so no secret of the build folder gets in.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ordinis
WORKDIR /app

COPY requirements-prod.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-prod.lock

COPY manage.py ./
COPY ordinis ordinis
COPY positions positions
COPY risk risk
COPY orders orders
COPY reconciliation reconciliation
COPY templates templates

# The only folder it writes to: collected static files, logs.
RUN install -d -o ordinis -g ordinis -m 0750 var
USER ordinis
EXPOSE 8000
CMD ["python", "manage.py", "web", "--host", "0.0.0.0"]
