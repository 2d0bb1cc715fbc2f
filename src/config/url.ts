/**
 * Imports: errors. User and password that stand in `clickhouse.url`: taken out of it, so that no message can show them,
 * and used.
 */
import { IngestError } from '../errors.js';

/** @throws `KCR_CONFIG` where they are given twice and differ. */
export function withoutCredentials(config: unknown): unknown {
  if (!isObject(config) || !isObject(config['clickhouse'])) return config;
  const { clickhouse } = config;
  const { url: given } = clickhouse;
  if (typeof given !== 'string' || !URL.canParse(given)) return config;
  const url = new URL(given);
  if (url.username === '' && url.password === '') return config;
  const own = { ...(url.username === '' ? {} : { username: decoded(url.username) }), ...(url.password === '' ? {} : { password: decoded(url.password) }) };
  for (const [name, value] of Object.entries(own)) {
    if (clickhouse[name] !== undefined && clickhouse[name] !== value) {
      throw refused(`clickhouse.${name}: another one stands in clickhouse.url`, 'give it in one of the two places');
    }
  }
  url.username = url.password = '';
  // As it was given: the parser adds a slash.
  const plain = url.pathname === '/' && !given.endsWith('/') ? url.href.replace(/\/$/, '') : url.href;
  return { ...config, clickhouse: { ...clickhouse, url: plain, ...own } };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refused('clickhouse.url: its user or password holds a % that begins no code', 'write %25 for %, or give clickhouse.username and clickhouse.password');
  }
}

function refused(what: string, hint: string): IngestError {
  return new IngestError('KCR_CONFIG', `The configuration cannot be used:\n  ${what}`, { hint });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
