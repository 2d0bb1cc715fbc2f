// The page of all keys, out of config.schema.json: what an editor is told, for people.

/** `${…}` may stand for every value: it is said once, above. */
const isReference = ({ pattern }) => pattern === '\\$\\{.+\\}';
const choicesOf = (schema) => (schema.anyOf ?? schema.oneOf ?? [schema]).filter((each) => !isReference(each));

function typeOf(schema) {
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${JSON.stringify(value)}\``).join(', ');
  const { type, minimum, maximum } = schema;
  const range = minimum === undefined && maximum === undefined ? '' : `, ${minimum ?? '…'} to ${maximum ?? '…'}`;
  return type === undefined ? '' : `${type}${range}`;
}

/** Every key below a schema, by its path; a key that several alternatives have stands there for each of them. */
function* rowsOf(schema, path) {
  for (const choice of choicesOf(schema)) {
    if (choice.items !== undefined) yield* rowsOf(choice.items, `${path}[]`);
    const required = new Set(choice.required);
    const kind = Object.values(choice.properties ?? {}).find((each) => each.const !== undefined)?.const;
    for (const [key, value] of Object.entries(choice.properties ?? {})) {
      const place = path === '' ? key : `${path}.${key}`;
      const types = [...new Set(choicesOf(value).map(typeOf).filter(Boolean))].join(', ');
      const needed = required.has(key) ? 'required' : '';
      const of = kind === undefined || value.const !== undefined ? '' : `\`${kind}\`: `;
      yield [`\`${place}\``, types, needed, `${of}${value.description ?? ''}`];
      yield* rowsOf(value, place);
    }
  }
}

const cell = (text) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('\n', ' ');

export function schemaPage(schema) {
  const rows = [...rowsOf(schema, '')].map((row) => `| ${row.map(cell).join(' | ')} |`);
  return `# All keys of the configuration

Made of \`config.schema.json\`, by which editors complete and check. A string with \`\${…}\` may stand for any value. With prose and
examples: [configuration](/configuration).

| key | type | | description |
| --- | --- | --- | --- |
${[...new Set(rows)].join('\n')}
`;
}
