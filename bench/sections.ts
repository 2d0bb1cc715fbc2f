/**
 * bench/RESULTS.md: a section for each benchmark, each written by the run that measured it; nothing in it is written by
 * hand.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const file = new URL('./RESULTS.md', import.meta.url);
const order = [
  'npm run bench',
  'npm run bench:profile',
  'npm run bench:overlap',
  'npm run bench:outage',
  'npm run bench:coalesced',
  'npm run bench:workers',
] as const;
const titles: Readonly<Record<(typeof order)[number], string>> = {
  'npm run bench': 'Side by side',
  'npm run bench:profile': 'Where the time goes',
  'npm run bench:overlap': 'Overlap',
  'npm run bench:outage': 'ClickHouse away for a minute',
  'npm run bench:coalesced': 'Many partitions, little traffic',
  'npm run bench:workers': 'Several processes',
};

/** Replaces what the command's last run wrote. */
export function writeSection(command: (typeof order)[number], markdown: string): void {
  const sections = new Map<string, string>();
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  for (const found of text.matchAll(/<!-- (npm run [\w:]+) -->\n([\s\S]*?)(?=\n<!-- npm run|$)/g))
    sections.set(found[1]!, found[2]!.trim());
  sections.set(
    command,
    `## ${titles[command]}\n\nFrom what \`${command} -- --json\` printed on ${new Date().toISOString().slice(0, 10)}.\n\n${markdown.trim()}`,
  );
  const known = order.filter((name) => sections.has(name)).map((name) => `<!-- ${name} -->\n${sections.get(name)}\n`);
  writeFileSync(
    file,
    `# Measured\n\nEach section was written by the command it names; run it again and it is replaced.\n\n${known.join('\n')}`,
  );
}
