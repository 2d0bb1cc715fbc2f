import rxjs from 'eslint-plugin-rxjs-x';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

export default defineConfig(
  { ignores: ['dist/', '.cache/', 'src/kernel/assembly/', 'test/stack/lib/', '**/*.mjs', '**/*.cjs'] },
  tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['*.config.js'] } } },
    rules: {
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
    },
  },
  {
    files: ['operators/**/*.ts', 'src/**/*.ts'],
    extends: [rxjs.configs.strict],
    rules: {
      // Errors that pass through an observable are IngestErrors or whatever a user's function threw.
      'rxjs-x/throw-error': 'off',
      'rxjs-x/no-ignored-subscription': 'off',
      // A port that completes without a value has broken its contract: last()'s EmptyError is what is wanted.
      'rxjs-x/no-ignored-default-value': 'off',
      'no-console': 'error',
    },
  },
  {
    files: ['operators/**/*.ts'],
    rules: {
      'no-restricted-globals': ['error', 'setTimeout', 'setInterval', 'Date'],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: 'take it as an argument' }],
    },
  },
  { files: ['src/cli/**/*.ts'], rules: { 'no-console': 'off' } },
  {
    files: ['test/**/*.ts', 'verification/**/*.ts'],
    rules: { 'max-lines-per-function': 'off', '@typescript-eslint/no-non-null-assertion': 'off' },
  },
);
