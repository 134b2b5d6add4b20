// What the studio and the tabs say, in English and in Korean: the browser's language, or the one chosen last.

const TEXTS = {
  en: {
    label: "Label", refresh: "Refresh", studio: "Studio", other: "한국어",
    empty: "There is no generator yet. Train one on this root, then look again:", again: "look again",
    waking: "Loading the generator: up to 20 seconds, the first time only …",
    eyes: "eyes", mouth: "mouth", hair_color: "hair colour", background: "background", head: "head",
    detail: "detail", temperature: "temperature", guidance: "guidance", fidelity: "retouching",
    eyes_ends: "closed … open", mouth_ends: "closed … open", hair_color_ends: "light … dark",
    background_ends: "dark … bright", head_ends: "turned left … right",
    detail_ends: "soft mean … all", range_why: "the pictures support {low} to {high}; beyond, the nearest is drawn",
    temperature_ends: "alike … varied", guidance_ends: "0 … 4, 1 plain", fidelity_ends: "0 none … 1 free",
    own: "as it is: {what} of each face's own", seed: "seed", dice: "another seed (r)", count: "faces",
    views: "views", many: "Many", neighbours: "Neighbours", sweep: "Sweeps", mix: "Mix", retouch: "Before / after",
    models: "Two models", photograph: "Photograph",
    face: "the chosen face", keep: "Keep", keep_title: "keep this face on the shelf (k)", download: "PNG", download_title: "download with its settings inside (d)",
    shelf: "Kept", shelf_empty: "Faces that you keep (k) wait here.", drop_face: "put back",
    sheet: "PNG of all", zip: "Zip of", zip_title: "pictures and their samples.csv, as the pipeline writes them", face_of: "face {name}",
    many_help: "Click a face to choose it: the sliders move it and all others, their latents held.",
    neighbours_help: "The chosen face among faces nearby in latent space. Click one to walk there.", distance: "distance", back: "‹ back",
    sweep_help: "The chosen face, one value moved from 0 to 1 in each row, all else the same. Click a picture to set its value.",
    mix_help: "A is the chosen face. Choose B, then how much of it each latent group takes: the coarse ones carry who it is, the fine ones details.",
    with: "B", values: "the five values", crossover: "coarse from A, fine from B", between: "from A to B in all groups", take: "go on with this face",
    retouch_help: "Retouching moves the latents so that the critic finds the face more real; the five values are held. Move the line between the two pictures.", wipe: "before … after",
    before: "before", after: "after", retouching: "retouching …", kept_as_is: "Left as it was: {why}.",
    set_fidelity: "Move the slider “retouching” above 0.", no_critic: "There is no critic yet. Run:",
    models_help: "The same latents and values, drawn by both registered generators.", champion: "champion", candidate: "candidate",
    none_registered: "MLflow's registry has no generator yet: each training registers one.",
    same: "Champion and candidate are the same version, {number}: there is nothing to compare until a training makes another one.",
    only: "Only {alias} exists: the other one comes with a training whose check passes.", version: "version {number}", figure: "figure",
    photograph_help: "Drop a photograph here, or choose one: upright, the face in the middle, as those of the data are. It stays on this machine. A picture downloaded here opens again as it was.",
    choose: "choose a photograph", cut: "as the pipeline cuts it", seen: "as the model sees it", edited: "your photograph, changed by the sliders",
    no_inputs: "The input models that read the five values are not trained yet. Run:", reading: "reading the photograph …",
    too_large: "{name} has {mb} MB; at most {most} MB are taken.", not_usable: "This picture cannot be used: {why}",
    kept: "kept", failed: "That did not work: {why}",
  },
  ko: {
    label: "레이블", refresh: "새로 고침", studio: "스튜디오", other: "English",
    empty: "아직 생성기가 없습니다. 이 폴더로 학습한 뒤 다시 보세요:", again: "다시 보기",
    waking: "생성기를 불러오는 중: 처음 한 번만 20초까지 걸립니다 …",
    eyes: "눈", mouth: "입", hair_color: "머리색", background: "배경", head: "고개",
    detail: "세부", temperature: "온도", guidance: "유도 강도", fidelity: "보정",
    eyes_ends: "감음 … 뜸", mouth_ends: "다묾 … 벌림", hair_color_ends: "밝음 … 어두움",
    background_ends: "어두움 … 밝음", head_ends: "왼쪽 … 오른쪽",
    detail_ends: "부드러운 평균 … 전부", range_why: "사진이 뒷받침하는 범위는 {low}–{high}입니다. 그 밖은 가장 가까운 값으로 그립니다",
    temperature_ends: "비슷함 … 다양함", guidance_ends: "0 … 4, 1은 보통", fidelity_ends: "0 없음 … 1 자유롭게",
    own: "그대로: 얼굴마다 제 {what}", seed: "시드", dice: "다른 시드 (r)", count: "얼굴 수",
    views: "보기", many: "여러 얼굴", neighbours: "이웃", sweep: "훑어보기", mix: "섞기", retouch: "보정 전후",
    models: "두 모델", photograph: "사진",
    face: "고른 얼굴", keep: "보관", keep_title: "이 얼굴을 보관함에 두기 (k)", download: "PNG", download_title: "설정이 담긴 그림 내려받기 (d)",
    shelf: "보관함", shelf_empty: "보관한 얼굴(k)이 여기 모입니다.", drop_face: "빼기",
    sheet: "모두 PNG로", zip: "Zip으로", zip_title: "그림들과 samples.csv, 파이프라인이 쓰는 그대로", face_of: "얼굴 {name}",
    many_help: "얼굴을 눌러 고르세요. 잠재값은 그대로 두고 슬라이더가 모든 얼굴을 바꿉니다.",
    neighbours_help: "고른 얼굴과 잠재 공간의 가까운 얼굴들. 누르면 그리로 옮겨 갑니다.", distance: "거리", back: "‹ 뒤로",
    sweep_help: "고른 얼굴에서 줄마다 한 값만 0에서 1까지 바꿉니다. 그림을 누르면 그 값이 됩니다.",
    mix_help: "A는 고른 얼굴입니다. B를 고르고 잠재 그룹마다 B를 얼마나 섞을지 정하세요. 거친 쪽은 누구인지를, 고운 쪽은 세부를 맡습니다.",
    with: "B", values: "다섯 값", crossover: "거친 쪽은 A, 고운 쪽은 B", between: "모든 그룹에서 A부터 B까지", take: "이 얼굴로 계속",
    retouch_help: "보정은 비평가가 더 진짜 같다고 여기는 쪽으로 잠재값을 옮기고 다섯 값은 그대로 둡니다. 두 그림 사이의 선을 옮겨 보세요.", wipe: "전 … 후",
    before: "보정 전", after: "보정 후", retouching: "보정하는 중 …", kept_as_is: "그대로 두었습니다: {why}.",
    set_fidelity: "“보정” 슬라이더를 0보다 크게 하세요.", no_critic: "아직 비평가가 없습니다. 실행하세요:",
    models_help: "같은 잠재값과 값을 등록된 두 생성기가 그린 그림입니다.", champion: "챔피언", candidate: "후보",
    none_registered: "MLflow 등록부에 아직 생성기가 없습니다. 학습할 때마다 하나씩 등록됩니다.",
    same: "챔피언과 후보가 같은 버전 {number}입니다. 새로 학습하기 전에는 견줄 것이 없습니다.",
    only: "{alias}만 있습니다. 다른 하나는 학습이 검사를 통과하면 생깁니다.", version: "버전 {number}", figure: "수치",
    photograph_help: "사진을 여기에 놓거나 고르세요. 바로 선, 얼굴이 가운데 있는 사진이 좋습니다. 사진은 이 컴퓨터를 떠나지 않습니다. 여기서 내려받은 그림은 그때 그대로 다시 열립니다.",
    choose: "사진 고르기", cut: "파이프라인이 자른 모습", seen: "모델이 보는 모습", edited: "슬라이더로 바꾼 내 사진",
    no_inputs: "다섯 값을 읽는 입력 모델이 아직 없습니다. 실행하세요:", reading: "사진을 읽는 중 …",
    too_large: "{name}: {mb} MB입니다. {most} MB까지만 받습니다.", not_usable: "쓸 수 없는 그림입니다: {why}",
    kept: "보관했습니다", failed: "되지 않았습니다: {why}",
  },
};

export let language = localStorage.language || (navigator.language.startsWith("ko") ? "ko" : "en");

export const t = (key, values = {}) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Write the texts of every element below `root` that names one: data-t its text, data-t-label its accessible name and tooltip.
export function translate(root = document) {
  for (const e of root.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
  for (const e of root.querySelectorAll("[data-t-label]")) {
    e.title = t(e.dataset.tLabel);
    e.setAttribute("aria-label", e.title);
  }
  for (const e of document.querySelectorAll("nav, #studio")) e.lang = language; // the other tabs are English
}

export function switchLanguage() {
  language = localStorage.language = language === "ko" ? "en" : "ko";
  translate();
  dispatchEvent(new Event("language"));
}
