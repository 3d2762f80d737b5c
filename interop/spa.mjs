// A person with a browser, at the page of examples/spa:
//
//     node spa.mjs '{"browser": path, "page": origin, "second": origin, "api": origin}'
//
// presses its buttons, and prints a line of JSON of each step: what the page then
// says and shows, and what went over the wire.

import { chromium } from 'playwright-core';

const plan = JSON.parse(process.argv[2]);
process.stdin.resume().on('end', () => process.exit());

const browser = await chromium.launch({
  executablePath: plan.browser,
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ viewport: { width: 390, height: 844 } }); // a phone's
context.setDefaultTimeout(60_000);

// What the page has sent and got, and what the browser said of it.
const wire = [];
const logged = [];
const page = await context.newPage();
page.on('request', (request) => {
  if (request.resourceType() === 'fetch') wire.push(request);
});
page.on('console', (message) => logged.push({ type: message.type(), text: message.text(), url: message.location().url }));
page.on('pageerror', (err) => logged.push({ type: 'exception', text: err.message }));
await page.exposeFunction('violated', (directive) => logged.push({ type: 'violation', text: directive }));
await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => window.violated(event.effectiveDirective)));

async function sent(request) {
  const headers = await request.allHeaders();
  const response = await request.response();
  const answer = (await response?.allHeaders()) ?? {};
  return {
    method: request.method(),
    url: request.url(),
    authorization: headers.authorization,
    dpop: headers.dpop,
    status: response?.status() ?? 0,
    challenge: answer['www-authenticate'],
    nonce: answer['dpop-nonce'],
  };
}

// shown reads the list of requests, the newest first: each is its sections, which
// are names and values.
const shown = () => page.locator('#requests > li').evaluateAll((entries) => entries.map((entry) => ({
  status: entry.querySelector('.status').textContent,
  sections: Object.fromEntries(Array.from(entry.querySelectorAll('section'), (section) => [
    section.querySelector('h3').textContent,
    Object.fromEntries(Array.from(section.querySelectorAll('dt'), (name) => [
      name.textContent,
      name.nextElementSibling.firstChild.textContent, // an explanation follows
    ])),
  ])),
})));

const idle = () => page.locator('#steps[aria-busy=false]').waitFor();

async function step(name, act) {
  const before = wire.length;
  const found = await act();
  await idle();
  const requests = await Promise.all(wire.slice(before).map(sent));
  console.log(JSON.stringify({
    step: name,
    said: await page.locator('#said').textContent(),
    problem: await page.locator('#problem').textContent(),
    thumbprint: await page.locator('#thumbprint').textContent(),
    wire: requests,
    shown: (await shown()).slice(0, requests.length).reverse(),
    logged: logged.splice(0),
    width: await page.evaluate(() => document.documentElement.scrollWidth),
    found,
  }));
}

const press = (id) => page.locator(`#${id}`).click();

async function signIn(origin) {
  await press('sign-in');
  // Whoever has signed in at another page is not asked again.
  const form = page.locator('form[method=post] button');
  const back = page.locator('#call:enabled');
  await form.or(back).waitFor();
  if (await form.isVisible()) await form.click();
  await page.waitForURL(`${origin}/`);
  await back.waitFor();
}

await step('open', async () => void (await page.goto(plan.page)));
await step('sign in', () => signIn(plan.page));
await step('call', () => press('call'));
await step('call again', () => press('call'));
await step('replay', () => press('replay'));
await step('bearer', () => press('bearer'));
await step('other key', () => press('other-key'));
await step('read the key', () => press('export'));

// The same without the page's own words. Whatever it does find is a failure.
const token = (await wire.at(-1).allHeaders()).authorization.split(' ')[1];
await step('take something', () => page.evaluate(async (secret) => {
  const found = [];
  for (const { name } of await indexedDB.databases()) {
    const database = await new Promise((resolve) => {
      indexedDB.open(name).onsuccess = (event) => resolve(event.target.result);
    });
    for (const store of database.objectStoreNames) {
      const values = await new Promise((resolve) => {
        database.transaction(store).objectStore(store).getAll().onsuccess = (event) => resolve(event.target.result);
      });
      if (JSON.stringify(values).includes(secret)) found.push(`the token in ${name}/${store}`);
      for (const { privateKey } of values) {
        for (const format of ['jwk', 'pkcs8']) {
          const took = await crypto.subtle.exportKey(format, privateKey).then(() => 'taken', (err) => err.name);
          found.push(`${privateKey.algorithm.name} as ${format}: ${took}`);
        }
      }
    }
  }
  for (const [name, text] of Object.entries({
    localStorage: JSON.stringify(localStorage),
    sessionStorage: JSON.stringify(sessionStorage),
    cookie: document.cookie,
    location: location.href,
    page: document.documentElement.outerHTML,
  })) {
    if (text.includes(secret)) found.push(`the token in ${name}`);
  }
  return found;
}, token.split('.')[2]));

// The page's policy. Each of these violates it.
await step('smuggle', () => page.evaluate(async (foreign) => {
  const violated = [];
  document.addEventListener('securitypolicyviolation', (event) => violated.push(event.effectiveDirective));
  const add = (tag, properties, text = '') => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(text);
    document.body.append(element);
  };
  add('script', {}, 'window.smuggled = true');
  add('style', {}, 'body { color: red }');
  add('img', { src: foreign });
  await import(`${foreign}/app.js`).catch(() => {});
  await fetch(foreign).catch(() => {});
  for (let i = 0; i < 100 && violated.length < 5; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  return window.smuggled ? ['a script ran'] : violated.sort();
}, plan.second));

// The same page at another origin has a token and a key as good as the first's.
await step('second: open', async () => void (await page.goto(plan.second)));
await step('second: sign in', () => signIn(plan.second));
await step('second: call', () => press('call'));
await step('second: other ways', () => page.evaluate(async ([api, authorization]) => {
  const ways = {
    'a token': { headers: { authorization } },
    nothing: {},
    'no-cors': { mode: 'no-cors' },
  };
  const found = [];
  for (const [name, init] of Object.entries(ways)) {
    const got = await fetch(`${api}/orders`, init).then(async (answer) => `${answer.type} ${answer.status} ${await answer.text()}`, (err) => err.name);
    found.push(`${name}: ${got}`);
  }
  return found;
}, [plan.api, `DPoP ${token}`]));

await browser.close();
process.exit();
