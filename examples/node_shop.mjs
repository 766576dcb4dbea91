// A shop on Node, without any package: a session cookie, orders without ids, books as a route.
//
//     PORT=8090 node examples/node_shop.mjs
//
// FAULT=check_then_await looks whether a unit is left, waits for the payment, and takes it then;
// without it the unit is taken before anybody else gets a turn.

import { createServer } from "node:http";
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";

const faulty = process.env.FAULT === "check_then_await";
const units = Number(process.env.UNITS ?? 20);
const stock = new Map([["1", units]]);
const sessions = new Map();
const orders = [];
const payment = () => pause(20);

async function buy(user, sku) {
  if (orders.some((order) => order.buyer === user && order.sku === sku)) return [403, { why: "had" }];
  if (!((stock.get(sku) ?? 0) > 0)) return [410, { why: "gone" }];
  if (faulty) await payment();
  stock.set(sku, stock.get(sku) - 1);
  orders.push({ buyer: user, sku, at: Date.now() });
  if (!faulty) await payment();
  return [200, { ok: true }];
}

async function answer(request) {
  const url = new URL(request.url, "http://shop");
  if (request.method === "POST" && url.pathname === "/login") {
    const sid = randomUUID();
    sessions.set(sid, url.searchParams.get("name"));
    return [204, null, { "set-cookie": ["theme=dark; Path=/", `sid=${sid}; Path=/; HttpOnly`] }];
  }
  if (url.pathname === "/books") {
    const skus = [...stock].map(([sku, left]) => ({ sku, left, units }));
    return [200, { orders, skus }];
  }
  const sid = /(?:^|; )sid=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
  const user = sessions.get(sid);
  if (!user) return [401, { why: "who are you?" }];
  return buy(user, url.pathname.split("/")[2]);
}

const server = createServer(async (request, response) => {
  request.resume();
  const [status, body, headers] = await answer(request);
  const text = body === null ? "" : JSON.stringify(body);
  response.writeHead(status, { "content-length": Buffer.byteLength(text), ...headers });
  response.end(text);
});
server.listen(Number(process.env.PORT ?? 8090), "127.0.0.1", 4096, () => {
  console.log(`listening on ${server.address().port}`);
});
