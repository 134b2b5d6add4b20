// Sentences of the server in Korean. In a pattern {n} stands for a number, {word} for one word, and any other slot for any text: {attribute}
// and {attributes} are translated as names, {causes} as a list of causes, {text} as a sentence. What is not listed, such as the message
// of a library, stays as it is.

import { called, language } from "./i18n.js";

const CAUSES = [
  ["first run", "첫 실행"],
  ["{n} label of {attribute} changed", "{attribute} 레이블 {n}개 변경"],
  ["{n} labels of {attribute} changed", "{attribute} 레이블 {n}개 변경"],
  ["{word} changed", "{word} 변경"],
  ["settings or code of {names} changed", "{names}의 설정이나 코드 변경"],
  ["{names} never made", "아직 만들지 않은 {names}"],
  ["{names} asked for", "{names} 요청"],
];

const SENTENCES = [
  // a plan: reasons, times, the line above it
  ["never made", "아직 만들지 않음"],
  ["its settings or code changed", "설정이나 코드가 바뀜"],
  ["asked for", "요청됨"],
  ["after {names}", "먼저 만들 에셋: {names}"],
  ["{word} changed", "{word} 변경"],
  ["Nothing is stale: 0 assets to make.", "바뀐 것이 없어 만들 에셋이 없습니다."],
  ["{text} to make for the first time, {text2}", "처음 만들 {text}, {text2}"],
  ["{causes} → {text}, {text2}; {attributes} stay", "{causes} → {text}, {text2}. 바뀌지 않음: {attributes}"],
  ["{causes} → {text}, {text2}; {attributes} stays", "{causes} → {text}, {text2}. 바뀌지 않음: {attributes}"],
  ["{causes} → {text}, {text2}", "{causes} → {text}, {text2}"],
  ["up to {text}", "최대 {text}"],
  ["{n} asset", "에셋 {n}개"],
  ["{n} assets", "에셋 {n}개"],
  ["time not known yet", "걸리는 시간은 아직 알 수 없음"],
  ["about {text} by last time's durations and {n} never timed", "지난번 기준 약 {text}, 걸리는 시간을 모르는 에셋 {n}개"],
  ["about {text} by last time's durations and {n} estimated", "지난번 기준 약 {text}, 그중 에셋 {n}개는 추정한 시간"],
  ["about {text} by last time's durations", "지난번 기준 약 {text}"],
  ["about {text} as estimated for two CPU cores", "코어 2개 기준 추정 약 {text}"],
  ["{n} second", "{n}초"], ["{n} seconds", "{n}초"], ["{n} minute", "{n}분"], ["{n} minutes", "{n}분"], ["{n} hours", "{n}시간"],
  // a refresh
  ["the plan is not ready after two minutes; the machine may be busy: try again later", "2분이 지나도 계획이 준비되지 않았습니다. 컴퓨터가 바쁜 것 같으니 나중에 다시 시도하세요"],
  ["a refresh is running", "갱신이 실행 중입니다"],
  ["the refresh runs on {word}: stop it there", "갱신이 {word}에서 실행 중입니다. 그 컴퓨터에서 중지하세요"],
  ["another refresh of {path} is running ({names}); wait for it or stop it", "{path}의 다른 갱신이 실행 중입니다({names}). 끝나기를 기다리거나 중지하세요"],
  ["interrupted; the same refresh continues from the last checkpoints", "중단되었습니다. 다시 갱신하면 마지막 체크포인트부터 이어집니다"],
  ["interrupted; run the same command again to continue", "중단되었습니다. 같은 명령을 다시 실행하면 이어집니다"],
  ["its process was killed; the same refresh continues from the last checkpoints", "프로세스가 강제 종료되었습니다. 다시 갱신하면 마지막 체크포인트부터 이어집니다"],
  ["{word}: check {names} failed: {text}", "{word}: 검사 {names} 실패: {text}"],
  ["{word}: check {names} failed", "{word}: 검사 {names} 실패"],
  ["{names}: stale again immediately after materialisation, since the inputs changed meanwhile; run gaip3 refresh again", "{names}: 만드는 동안 입력이 바뀌어 곧바로 다시 오래된 상태가 되었습니다. gaip3 refresh를 다시 실행하세요"],
  ["The assets downstream were not materialised.", "이어지는 에셋은 만들지 않았습니다."],
  // a disk
  ["No space left on device: {path}", "디스크에 남은 공간이 없습니다: {path}"],
  ["Disk quota exceeded: {path}", "디스크 할당량을 넘었습니다: {path}"],
  ["Read-only file system: {path}", "읽기 전용 파일 시스템입니다: {path}"],
  ["Permission denied: {path}", "쓸 권한이 없습니다: {path}"],
  // labels
  ["there is no attribute {names}", "{names} 속성은 없습니다"],
  ["there is no image {names} in the {sex} originals", "{sex} 원본에 {names} 사진이 없습니다"],
  ["there is no change {n}", "{n}번 변경은 없습니다"],
  ["there is no such level", "그런 단계는 없습니다"],
  ["there is no such picture", "그런 그림은 없습니다"],
  ["{attribute} of {names} was changed since by {who}; it stays {text}", "{who}님이 그사이 {names}의 {attribute} 값을 바꾸었습니다. {text} 상태로 둡니다"],
  ["unlabelled", "레이블 없음"],
  ["similar pictures of {names} are not known yet: a refresh measures its features", "{names}와 비슷한 사진을 아직 알 수 없습니다. 갱신하면 특징을 측정합니다"],
  ["{names} is labelled with none of the levels, so it shows none", "{names}의 레이블은 어느 단계도 아니므로 예시가 될 수 없습니다"],
  ["{path}, line {n}: column gender is {names}; write female or male", "{path}, {n}번째 줄: gender 열이 {names}입니다. female이나 male로 쓰세요"],
  ["{path}, line {n}: column value is empty; write a number from 0 to 1, or remove the row", "{path}, {n}번째 줄: value 열이 비어 있습니다. 0부터 1까지의 수를 쓰거나 행을 지우세요"],
  ["{path}, line {n}: column value is {names}; write a number from 0 to 1, or remove the row", "{path}, {n}번째 줄: value 열이 {names}입니다. 0부터 1까지의 수를 쓰거나 행을 지우세요"],
  ["{path}, line {n}: column value is {value} for {sex} {names}, but line {line} says {other}; keep one of the two", "{path}, {n}번째 줄: {sex} {names}의 value 열이 {value}인데 {line}번째 줄에는 {other}입니다. 둘 중 하나만 남기세요"],
  ["{path}, line {n}: column {names} is missing; the first line must have {rest}", "{path}, {n}번째 줄: {names} 열이 없습니다. 첫 줄에 {rest} 열이 있어야 합니다"],
  ["{path}, line {n}: {n2} fields, {n3} expected", "{path}, {n}번째 줄: 필드가 {n2}개입니다. {n3}개여야 합니다"],
  ["{path}, line {n}: a merge conflict ({mark}); keep the rows that are right and remove the lines that begin with <<<<<<<, ======= and >>>>>>>", "{path}, {n}번째 줄: 병합 충돌({mark})이 있습니다. 맞는 행만 남기고 <<<<<<<, =======, >>>>>>>로 시작하는 줄을 지우세요"],
  ["{path}: not UTF-8 (byte {n}); save it as UTF-8 (in Excel: “CSV UTF-8”)", "{path}: UTF-8이 아닙니다({n}번째 바이트). UTF-8로 저장하세요(엑셀: “CSV UTF-8”)"],
  ["… and {n} more", "… 외 {n}개"],
  // pictures
  ["no picture: {text}", "그림을 표시할 수 없습니다: {text}"],
  ["empty file", "빈 파일"],
  ["not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture", "JPEG, PNG, WebP, BMP, TIFF, AVIF 그림이 아님"],
  ["too large: {n} x {n2} is more than {n3} pixels", "너무 큼: {n} x {n2}은(는) {n3}픽셀보다 많음"],
  ["too large: a file of {n} bytes", "너무 큼: {n}바이트 파일"],
  ["damaged: {names}", "손상됨: {names}"],
  ["cannot be read: it is gone", "읽을 수 없음: 파일이 없어짐"],
  ["cannot be read: {names}", "읽을 수 없음: {names}"],
  // the studio
  ["as real as real pictures already", "이미 실제 사진만큼 실제 같음"],
  ["diverged: its gradient or picture is not a number", "발산함: 기울기나 그림이 수가 아님"],
  ["no step raised the objective", "목적 함수를 높이는 단계가 없음"],
  ["fidelity 0", "보정 0"],
  ["drawn where pictures have their latents already", "이미 사진의 잠재값이 있는 곳에서 그려짐"],
  ["the guide is of no use: {text}", "비평가 모델이 쓸모가 없음: {text}"],
  ["this face is of another generator: here a face has {n} numbers", "다른 생성기의 얼굴입니다. 이 생성기의 얼굴은 수 {n}개로 되어 있습니다"],
  ["this face mixes {n} levels, and this generator has {n2}: it is of another generator", "이 얼굴은 {n}단계를 섞었지만 이 생성기는 {n2}단계이므로, 다른 생성기의 얼굴입니다"],
  ["a part of less than {n} of the photograph", "사진의 {n}보다 작은 부분입니다"],
  ["the process of the generator has ended, perhaps because memory ran out; the next picture starts it again", "생성기 프로세스가 끝났습니다. 메모리가 부족했을 수 있습니다. 다음 그림에서 다시 시작합니다"],
  ["the generator failed: the output of gaip3 label says why", "생성기가 실패했습니다. gaip3 label의 출력에 이유가 있습니다"],
  ["too many pictures are requested at the same time: try again", "동시에 요청한 그림이 너무 많습니다. 다시 시도하세요"],
  ["{names}: run gaip3 refresh --root {rest}", "{names}: gaip3 refresh --root {rest} 명령을 실행하세요"],
  ["this picture was drawn by {names}, and the studio has {other}: gaip3 generate --from draws it again if MLflow's registry has that pair", "이 그림은 {names}(으)로 그렸는데 스튜디오에는 {other}이(가) 있습니다. MLflow 레지스트리에 그 쌍이 있으면 gaip3 generate --from으로 다시 그릴 수 있습니다"],
  // who may talk to the server
  ["The host {names} is not this machine: open the page at 127.0.0.1", "호스트 {names}은(는) 이 컴퓨터가 아닙니다. 127.0.0.1에서 페이지를 여세요"],
  ["This request comes from another web site", "다른 웹 사이트에서 온 요청입니다"],
  ["Requests of more than {n} bytes are not accepted", "{n}바이트보다 큰 요청은 받지 않습니다"],
  ["The token is missing or wrong: open the link that gaip3 printed", "토큰이 없거나 틀렸습니다. gaip3가 출력한 링크를 여세요"],
];

const KIND = { n: "[\\d,.]+", word: "\\S+?" };
const compiled = (sentences) => sentences.map(([english, korean]) => {
  const names = [];
  const pattern = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+?)(\d?)\}/g, (_, name, number) => {
    names.push(name + number);
    return `(${KIND[name] ?? ".+?"})`;
  });
  return { pattern, names, korean };
});
const causes = compiled(CAUSES), sentences = compiled(SENTENCES);

const inList = (text) => text.split(", ").map(called).join(", ");
const MEANING = { text: sentence, attribute: called, attributes: inList, causes: listed };

function filled({ names, korean }, values) {
  const found = Object.fromEntries(names.map((name, i) => [name, (MEANING[name.replace(/\d$/, "")] ?? String)(values[i])]));
  return korean.replace(/\{(\w+)\}/g, (_, name) => found[name]);
}

function sentence(text) {
  for (const one of sentences) {
    const match = new RegExp(`^${one.pattern}$`).exec(text);
    if (match) return filled(one, match.slice(1));
  }
  return text;
}

function listed(text) {
  const out = [];
  for (let rest = text; rest;) {
    const [one, match] = causes.map((c) => [c, new RegExp(`^${c.pattern}(?:, |$)`).exec(rest)]).find(([, m]) => m) ?? [];
    if (!one) return [...out, rest].join(", ");
    out.push(filled(one, match.slice(1)));
    rest = rest.slice(match[0].length);
  }
  return out.join(", ");
}

// What the server says, in the language of the page; each line is a sentence of its own.
export const said = (text) => language === "ko" ? text.split("\n").map(sentence).join("\n") : text;
