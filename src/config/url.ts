/**
 * User and password that stand in `clickhouse.url` or `clickhouse.proxy.url`: taken out of it, so that
 * no message can show them, and used. Imports: nothing.
 */
import { unusable } from './unusable.js';

/** @throws `KCR_CONFIG` where they are given twice and differ. */
export function withoutCredentials(config: unknown): unknown {
  if (!isObject(config) || !isObject(config['clickhouse'])) return config;
  const clickhouse = apart(config['clickhouse'], 'clickhouse');
  const { proxy } = clickhouse;
  return {
    ...config,
    clickhouse: isObject(proxy) ? { ...clickhouse, proxy: apart(proxy, 'clickhouse.proxy') } : clickhouse,
  };
}

/** The object with a plain `url`, and what stood in it beside it. */
function apart(of: Record<string, unknown>, place: string): Record<string, unknown> {
  const { url: given } = of;
  if (typeof given !== 'string' || !URL.canParse(given)) return of;
  const url = new URL(given);
  if (url.username === '' && url.password === '') return of;
  const own = {
    ...(url.username === '' ? {} : { username: decoded(url.username, place) }),
    ...(url.password === '' ? {} : { password: decoded(url.password, place) }),
  };
  for (const [name, value] of Object.entries(own)) {
    if (of[name] !== undefined && of[name] !== value) {
      throw unusable(`${place}.${name}: another one stands in ${place}.url`, 'give it in one of the two places');
    }
  }
  url.username = url.password = '';
  // As it was given: the parser adds a slash.
  const plain = url.pathname === '/' && !given.endsWith('/') ? url.href.replace(/\/$/, '') : url.href;
  return { ...of, url: plain, ...own };
}

function decoded(text: string, place: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unusable(
      `${place}.url: its user or password holds a % that begins no code`,
      `write %25 for %, or give ${place}.username and ${place}.password`,
    );
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
