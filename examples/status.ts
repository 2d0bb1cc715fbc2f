// What an ingestion tells of itself, looked at and served by the process that it is a part of.
import { ingest, registerMetrics, serveStatus, type IngestConfig, type StatusServer } from 'kafka-clickhouse-rx';
import { Registry } from 'prom-client';

export async function ingestAndServe(config: IngestConfig): Promise<StatusServer> {
  const ingestion = ingest(config);
  const registry = new Registry();
  registerMetrics(ingestion, { registry });
  ingestion.subscribe();
  const { lagRecords, limit, partitions } = ingestion.status();
  console.log(`${partitions.length} partitions, ${lagRecords} records to go, limited by ${limit}`);
  return serveStatus(ingestion, { listen: '127.0.0.1:9464', registry });
}
