// Asks the endpoint, with the token if there is one.

export const at = (id) => document.getElementById(id);

export class Refused extends Error {
  constructor(status, { error, code, hint, request_id: id }) {
    super(error);
    Object.assign(this, { status, code, hint, id });
  }
}

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, { error: "The endpoint does not answer.", hint: "Is it still running?" });
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Refused(response.status, { error: text || response.statusText, hint: "" });
  }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}
