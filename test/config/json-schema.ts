/**
 * Makes the configuration's JSON Schema, for editors and for checks before a roll-out: shape and limits from the schema
 * by which the program decides, descriptions from the documented type. Published as `config.schema.json`; a test sees
 * that the file is what is made here.
 */
import { z } from 'zod';
import { withDescriptions, type JsonSchema } from './doc-comments.js';
import { configSchema } from '../../src/config/schema.js';

/** Where a number, a boolean, a list or one of a few words belongs, text that refers to one is taken too. */
const reference = { type: 'string', pattern: '\\$\\{.+\\}' };

/** `unsaid` is told of each key that the documented type has no comment for. */
export function configJsonSchema(unsaid: (place: string) => void = () => undefined): JsonSchema {
  const shape = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any', target: 'draft-7' }) as JsonSchema;
  const schema = withDescriptions(shape, unsaid);
  const properties = schema['properties'] as Record<string, JsonSchema>;
  const plain = Object.fromEntries(
    Object.entries(properties).map(([name, of]) => [name, name === '$schema' ? of : withReferences(of)]),
  );
  return {
    ...schema,
    $id: 'https://unpkg.com/kafka-clickhouse-rx/config.schema.json',
    title: 'kafka-clickhouse-rx',
    properties: plain,
  };
}

function withReferences(of: JsonSchema): JsonSchema {
  const {
    default: preset,
    description,
    ...own
  } = Object.fromEntries(Object.entries(of).map(([key, value]) => [key, inner(key, value)]));
  const { type, pattern, format } = own;
  const isPlainText =
    type === 'string' &&
    pattern === undefined &&
    format === undefined &&
    own['enum'] === undefined &&
    own['const'] === undefined;
  // The words that tell one kind of object from another stay words: "store", "mechanism".
  const takesText =
    ['integer', 'number', 'boolean', 'array'].includes(type as string) ||
    (type === 'string' && !isPlainText && own['const'] === undefined);
  const schema = takesText ? { anyOf: [own, reference] } : own;
  return {
    ...(description === undefined ? {} : { description }),
    ...schema,
    ...(preset === undefined ? {} : { default: preset }),
  };
}

/** Functions are for ESM files, which no schema is for. */
function withoutFunctions(properties: Record<string, JsonSchema>): Record<string, JsonSchema> {
  return Object.fromEntries(
    Object.entries(properties).filter(([, of]) => Object.keys(of).some((key) => key !== 'description')),
  );
}

function inner(key: string, value: unknown): unknown {
  if (key === 'properties')
    return Object.fromEntries(
      Object.entries(withoutFunctions(value as Record<string, JsonSchema>)).map(([name, of]) => [
        name,
        withReferences(of),
      ]),
    );
  if (key === 'items' || (key === 'additionalProperties' && typeof value === 'object'))
    return withReferences(value as JsonSchema);
  if (key === 'anyOf' || key === 'oneOf') return (value as JsonSchema[]).map(withReferences);
  return value;
}
