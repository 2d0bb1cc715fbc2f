/**
 * The chart of the README: rows a second by contender, one group a workload. Whoever fills no table is not in it. Pure:
 * numbers in, SVG out.
 */
import type { Line } from './report.js';

const width = 860;
const barHeight = 18;
const left = 290;
const workloads: Readonly<Record<string, string>> = {
  flights: 'Flights, 95 bytes',
  event244: 'Events of 244 bytes',
  event1k: 'Events of 1 KB',
};
const contenders: Readonly<Record<string, string>> = {
  ceiling: 'ceiling: the same bytes, posted from memory',
  'kafka-engine': 'ClickHouse’s Kafka table engine',
  naive: 'kafkajs, JSON.parse, client.insert',
};

export function chart(all: readonly Line[]): string {
  const lines = all.filter(({ name, rowsPerSecond }) => name !== 'consumer-only' && Number.isFinite(rowsPerSecond));
  const most = Math.max(...lines.map(({ rowsPerSecond }) => rowsPerSecond));
  const parts: string[] = [];
  let y = 34;
  for (const workload of new Set(lines.map((line) => line.workload))) {
    parts.push(`<text x="12" y="${y + 4}" font-weight="600">${workloads[workload] ?? workload}</text>`);
    y += 14;
    for (const { name, rowsPerSecond } of lines.filter((line) => line.workload === workload)) {
      const length = Math.round((rowsPerSecond / most) * (width - left - 110));
      const colour = name.startsWith('exactly-once') ? '#1f6feb' : name === 'at-least-once' ? '#8ab4f8' : '#b0b7c3';
      parts.push(`<text x="${left - 8}" y="${y + 13}" text-anchor="end">${contenders[name] ?? name}</text>`);
      parts.push(`<rect x="${left}" y="${y}" width="${length}" height="${barHeight - 4}" rx="2" fill="${colour}"/>`);
      parts.push(`<text x="${left + length + 6}" y="${y + 12}">${Math.round(rowsPerSecond / 1000)} k</text>`);
      y += barHeight;
    }
    y += 22;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" font-family="system-ui, sans-serif" font-size="12" fill="#24292f">
<rect width="${width}" height="${y}" fill="#ffffff"/>
<text x="12" y="18" font-size="14" font-weight="600">Rows a second into ClickHouse, on two shared cores</text>
${parts.join('\n')}
</svg>
`;
}
