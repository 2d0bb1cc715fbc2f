/**
 * What a proxy answers in place of ClickHouse. Pure. Imports: nothing.
 */
const TITLE_LENGTH = 100;

/** In a few words what an HTML page is, mostly an error's; undefined for what is no page. */
export function webPage(text: string): string | undefined {
  if (!/^\s*(?:<!doctype html|<html|<head|<\?xml)/i.test(text)) return undefined;
  const title = (/<title[^>]*>([^<]*)/i.exec(text)?.[1] ?? '').replace(/\s+/g, ' ').trim().slice(0, TITLE_LENGTH);
  return `a web page, not ClickHouse${title === '' ? '' : `: "${title}"`}`;
}
