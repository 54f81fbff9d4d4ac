// What the programs beside this file share: the register of features, and what their bodies check with. It knows neither library.
//
// A program registers its features and calls run(): `node amqplib.js FEATURE`. The broker is named by AMQP_URL; the names of what a feature
// declares begin with AMQP_PREFIX. Exit status: 0 all checks held (their number is printed), 1 one did not, 2 there is no such feature.
"use strict";

const { deepStrictEqual } = require("node:assert");

const url = process.env.AMQP_URL;
const withinMs = 30_000; // for anything that must happen; nothing waits this long when all is well

const features = new Map();
let held = 0;
let names = 0;

function feature(name, body) {
  features.set(name, body);
}

function equal(what, got, want) {
  try {
    deepStrictEqual(got, want);
  } catch (error) {
    throw new Error(`${what}: ${error.message}`);
  }
  held++;
}

// A name that nothing else has.
function name(kind) {
  return `${process.env.AMQP_PREFIX}-${kind}-${++names}`;
}

// The error with which a promise is rejected.
async function failureOf(what, promise) {
  try {
    await within(what, promise);
  } catch (error) {
    held++;
    return error;
  }
  throw new Error(`${what}: it succeeded`);
}

async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${withinMs} ms`)), withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// What came, in order, for a test to take: give `put` to whoever calls back, and await `take()`.
class Inbox {
  constructor(what) {
    this.what = what;
    this.waiting = [];
    this.wanted = [];
    this.put = (item) => (this.wanted.length ? this.wanted.shift()(item) : this.waiting.push(item));
  }

  take() {
    if (this.waiting.length) {
      return this.waiting.shift();
    }
    return within(this.what, new Promise((resolve) => this.wanted.push(resolve)));
  }
}

async function run() {
  const body = features.get(process.argv[2]);
  if (body === undefined) {
    console.error("usage: node PROGRAM FEATURE, with one of the features that the program registers");
    process.exit(2);
  }
  process.on("unhandledRejection", (error) => fail(error));
  try {
    await body();
    console.log(`${held} checks held`);
    process.exit(0);
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

module.exports = { url, feature, equal, name, failureOf, within, Inbox, run };
