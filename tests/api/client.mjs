// What the scripts here share: a step prints one line {name, error?}, and run.py counts it.
import readline from "node:readline";

export const url = process.argv[2];

export async function step(name, body) {
  try {
    await body();
    console.log(JSON.stringify({ name }));
  } catch (error) {
    const said = error?.response?.data ?? error;
    console.log(JSON.stringify({ name, error: `${error?.stack ?? error} ${JSON.stringify(said)}`.slice(0, 3000) }));
  }
}

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function open(uri) {
  console.log(JSON.stringify({ uri })); // by psql, in run.py, which says when it is done
  await answers.next();
}

export function expect(condition, why) {
  if (!condition) {
    throw new Error(`not so: ${JSON.stringify(why)}`);
  }
}

export function done() {
  process.stdin.destroy();
}
