# Airflow with the provider package of this checkout, issuer included.
FROM apache/airflow:3.3.2
COPY --chown=airflow:0 airflow-provider /tmp/airflow-provider
RUN pip install --no-cache-dir '/tmp/airflow-provider[issuer]'
# The issuer's keys lie here; the volume takes over who owns it.
RUN mkdir -p /opt/airflow/cortex
