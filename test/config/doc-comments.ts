// What stands in the doc comments of the documented type, put into a JSON schema: one place says what a key is.
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export type JsonSchema = Record<string, unknown>;

const file = fileURLToPath(new URL('../../src/config/ingest-config.ts', import.meta.url));

/** The schema with a `description` at each key that is documented. `unsaid` is told of each key that is not. */
export function withDescriptions(schema: JsonSchema, unsaid: (place: string) => void): JsonSchema {
  const program = ts.createProgram([file], {
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.NodeNext,
    strict: true,
  });
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!;
  const root = checker.getExportsOfModule(module).find(({ name }) => name === 'IngestConfig')!;
  return new Describing(checker, unsaid).described(schema, checker.getDeclaredTypeOfSymbol(root), '');
}

class Describing {
  constructor(
    readonly checker: ts.TypeChecker,
    readonly unsaid: (place: string) => void,
  ) {}

  described(schema: JsonSchema, type: ts.Type, place: string): JsonSchema {
    const options = (['anyOf', 'oneOf'] as const).find((key) => schema[key] !== undefined);
    if (options !== undefined) {
      const each = (schema[options] as JsonSchema[]).map((option) => this.described(option, type, place));
      return { ...schema, [options]: each };
    }
    if (schema['type'] === 'array') {
      const element = this.#kinds(type).flatMap((kind) => kind.getNumberIndexType() ?? [])[0];
      const items = schema['items'] as JsonSchema;
      return element === undefined ? schema : { ...schema, items: this.described(items, element, `${place}[]`) };
    }
    const properties = schema['properties'] as Record<string, JsonSchema> | undefined;
    if (properties === undefined) return schema;
    const kind = this.#kindWith(type, Object.keys(properties));
    const entries = Object.entries(properties).map(([key, of]) => [key, this.#property(of, kind, key, place)] as const);
    return { ...schema, properties: Object.fromEntries(entries) };
  }

  #property(schema: JsonSchema, kind: ts.Type, key: string, place: string): JsonSchema {
    const symbol = this.checker.getPropertyOfType(kind, key);
    const at = `${place}.${key}`.replace(/^\./, '');
    if (symbol === undefined) throw new Error(`the documented type has no ${at}`);
    const within = this.described(schema, this.checker.getTypeOfSymbol(symbol), at);
    const text = this.#textOf(symbol);
    if (text === '' || text.startsWith('Default:')) this.unsaid(at);
    return text === '' ? within : { description: text, ...within };
  }

  #textOf(symbol: ts.Symbol): string {
    const said = ts.displayPartsToString(symbol.getDocumentationComment(this.checker));
    const preset = symbol
      .getJsDocTags(this.checker)
      .filter(({ name }) => name === 'default')
      .map(({ text }) => `Default: ${ts.displayPartsToString(text)}`);
    return [said, ...preset].join(' ').replace(/\s+/g, ' ').trim();
  }

  /** The kind of object that has just these keys: of each kind of state store another text says what `path` is. */
  #kindWith(type: ts.Type, keys: readonly string[]): ts.Type {
    const lacks = (kind: ts.Type) => {
      const names = new Set(kind.getProperties().map(({ name }) => name));
      return keys.filter((key) => !names.has(key)).length * 100 + names.size - keys.length;
    };
    return this.#kinds(type).sort((a, b) => lacks(a) - lacks(b))[0]!;
  }

  #kinds(type: ts.Type): ts.Type[] {
    return (type.isUnion() ? type.types : [type]).filter(({ flags }) => (flags & ts.TypeFlags.Object) !== 0);
  }
}
