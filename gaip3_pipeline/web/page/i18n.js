// Texts of the studio and of the tab bar, in English and in Korean. The language is the one chosen last, else the browser's.

const TEXTS = {
  en: {
    label: "Label", refresh: "Refresh", studio: "Studio", other: "한국어",
    empty: "There is no generator yet. Train one with this command, then check again:", again: "Check again",
    waking: "Loading the generator. This takes up to 20 seconds, the first time only …",
    eyes: "eyes", mouth: "mouth", hair_color: "hair colour", background: "background", head: "head",
    detail: "detail", temperature: "temperature", guidance: "guidance", fidelity: "retouching",
    eyes_ends: "closed … open", mouth_ends: "closed … open", hair_color_ends: "light … dark",
    background_ends: "dark … bright", head_ends: "turned left … right",
    detail_ends: "none … full", range_why: "training pictures cover {low} to {high}; values outside are clipped",
    temperature_ends: "similar … varied", guidance_ends: "0 … 4; 1 = no amplification", fidelity_ends: "0 none … 1 strongest",
    own: "Reset {what} to each face's own value", seed: "seed", dice: "new random seed (r)", count: "faces",
    views: "views", many: "Faces", neighbours: "Neighbours", sweep: "Sweeps", mix: "Mix", retouch: "Before / after",
    models: "Two models", photograph: "Photograph",
    face: "the selected face", keep: "Keep", keep_title: "keep this face in the list below (k)", download: "PNG", download_title: "download a PNG that contains the settings of this face (d)",
    shelf: "Kept faces", shelf_empty: "Faces that you keep (k) appear here.", drop_face: "remove",
    sheet: "All as PNG", zip: "Zip of", zip_title: "download this many faces and their samples.csv, in the format of the pipeline's samples", face_of: "face {name}",
    many_help: "Click a face to select it. The sliders change every face; the latents stay fixed.",
    neighbours_help: "The selected face, surrounded by faces that are near it in latent space. Click one to select it.", distance: "distance", back: "‹ back",
    sweep_help: "The selected face. Each row changes one value from 0 to 1 and keeps everything else fixed. Click a picture to set its value.",
    mix_help: "A is the selected face. Choose B, then set the share of B in each latent group. Coarse groups determine the identity, fine groups the small features.",
    with: "B", values: "the five values", crossover: "coarse groups from A, fine groups from B", between: "all groups from A to B", take: "Use this face",
    retouch_help: "Retouching moves the latents so that the critic rates the face as more realistic. The five values change as little as possible. Move the slider to compare the two pictures.", wipe: "before … after",
    before: "before", after: "after", retouching: "retouching …", kept_as_is: "Not changed: {why}.",
    set_fidelity: "Move the slider “retouching” above 0.", no_critic: "There is no critic yet. Train it with this command:",
    models_help: "The same latents and values, drawn by both registered generators.", champion: "champion", candidate: "candidate",
    none_registered: "The MLflow model registry contains no generator yet. Each training registers one.",
    same: "Champion and candidate are the same version ({number}). There is nothing to compare until the next training.",
    only: "Only the {alias} exists. The other one appears after a training whose check passes.", version: "version {number}", figure: "metric",
    photograph_help: "Drop a photograph here, or choose one. It should be upright with the face in the middle, like the training photographs. It is sent only to the machine that serves this page. A PNG from the studio opens with its saved settings.",
    choose: "Choose a photograph", cut: "cropped by the pipeline", seen: "reconstructed by the model", edited: "your photograph, edited with the sliders",
    no_inputs: "The models that predict the five values of a photograph are not trained yet. Train them with this command:", reading: "reading the photograph …",
    too_large: "{name} is {mb} MB; the limit is {most} MB.", not_usable: "This picture cannot be used: {why}",
    empty_file: "{name} is empty: it has 0 bytes.", no_picture: "{name} is not a picture that can be read. Choose a JPEG or PNG, or save it as one.",
    kept: "Face kept.", failed: "The request failed: {why}",
  },
  ko: {
    label: "레이블", refresh: "새로 고침", studio: "스튜디오", other: "English",
    empty: "아직 생성기가 없습니다. 아래 명령으로 학습한 뒤 다시 확인하세요.", again: "다시 확인",
    waking: "생성기를 불러오는 중입니다. 처음 한 번만 최대 20초가 걸립니다 …",
    eyes: "눈", mouth: "입", hair_color: "머리 색", background: "배경", head: "고개",
    detail: "디테일", temperature: "온도", guidance: "가이던스", fidelity: "보정",
    eyes_ends: "감음 … 뜸", mouth_ends: "다묾 … 벌림", hair_color_ends: "밝음 … 어두움",
    background_ends: "어두움 … 밝음", head_ends: "왼쪽 … 오른쪽",
    detail_ends: "없음 … 최대", range_why: "학습 사진의 범위는 {low}–{high}이며, 벗어난 값은 이 범위로 제한됩니다",
    temperature_ends: "비슷함 … 다양함", guidance_ends: "0 … 4, 1 = 증폭 없음", fidelity_ends: "0 없음 … 1 최대",
    own: "{what} 값을 얼굴별 원래 값으로 초기화", seed: "시드", dice: "새 무작위 시드 (r)", count: "얼굴 수",
    views: "보기", many: "여러 얼굴", neighbours: "이웃", sweep: "값 변화", mix: "섞기", retouch: "보정 전후",
    models: "두 모델", photograph: "사진",
    face: "선택한 얼굴", keep: "보관", keep_title: "이 얼굴을 아래 보관함에 추가 (k)", download: "PNG", download_title: "이 얼굴의 설정이 담긴 PNG 내려받기 (d)",
    shelf: "보관함", shelf_empty: "보관한 얼굴(k)이 여기에 표시됩니다.", drop_face: "제거",
    sheet: "전체 PNG", zip: "Zip", zip_title: "입력한 수만큼의 얼굴과 samples.csv를 파이프라인의 samples와 같은 형식으로 내려받기", face_of: "얼굴 {name}",
    many_help: "얼굴을 클릭하면 선택됩니다. 슬라이더는 모든 얼굴에 적용되고 잠재값은 그대로 유지됩니다.",
    neighbours_help: "선택한 얼굴과, 잠재 공간에서 그 주변에 있는 얼굴들입니다. 클릭하면 그 얼굴이 선택됩니다.", distance: "거리", back: "‹ 뒤로",
    sweep_help: "선택한 얼굴에서 행마다 한 가지 값만 0에서 1까지 바꾸고 나머지는 고정합니다. 그림을 클릭하면 그 값이 적용됩니다.",
    mix_help: "A는 선택한 얼굴입니다. B를 고른 뒤 잠재 그룹마다 B의 비율을 정하세요. 해상도가 낮은 그룹은 인물을, 높은 그룹은 작은 특징을 결정합니다.",
    with: "B", values: "다섯 값", crossover: "저해상도 그룹은 A, 고해상도 그룹은 B", between: "모든 그룹을 A에서 B로", take: "이 얼굴 사용",
    retouch_help: "보정은 비평가 모델이 더 실제 같다고 평가하는 방향으로 잠재값을 옮깁니다. 다섯 값은 되도록 유지됩니다. 슬라이더를 움직여 두 그림을 비교해 보세요.", wipe: "전 … 후",
    before: "보정 전", after: "보정 후", retouching: "보정하는 중 …", kept_as_is: "바뀌지 않았습니다: {why}.",
    set_fidelity: "“보정” 슬라이더를 0보다 크게 설정하세요.", no_critic: "아직 비평가 모델이 없습니다. 아래 명령으로 학습하세요.",
    models_help: "등록된 두 생성기가 같은 잠재값과 같은 다섯 값으로 그린 그림입니다.", champion: "챔피언", candidate: "후보",
    none_registered: "MLflow 모델 레지스트리에 아직 생성기가 없습니다. 학습할 때마다 하나씩 등록됩니다.",
    same: "챔피언과 후보가 같은 버전({number})입니다. 다음 학습이 끝나기 전에는 비교할 것이 없습니다.",
    only: "{alias}만 있습니다. 다른 하나는 검사를 통과한 학습이 있으면 생깁니다.", version: "버전 {number}", figure: "지표",
    photograph_help: "사진을 여기에 끌어다 놓거나 선택하세요. 학습 사진처럼 기울지 않고 얼굴이 가운데에 있는 사진이 좋습니다. 사진은 이 페이지를 제공하는 컴퓨터로만 전송됩니다. 스튜디오에서 내려받은 PNG는 저장된 설정 그대로 열립니다.",
    choose: "사진 선택", cut: "파이프라인이 자른 사진", seen: "모델이 재구성한 사진", edited: "슬라이더로 편집한 내 사진",
    no_inputs: "사진에서 다섯 값을 예측하는 모델이 아직 없습니다. 아래 명령으로 학습하세요.", reading: "사진을 읽는 중 …",
    too_large: "{name}의 크기는 {mb} MB입니다. 최대 {most} MB까지 올릴 수 있습니다.", not_usable: "사용할 수 없는 그림입니다: {why}",
    empty_file: "{name} 파일이 비어 있습니다(0바이트).", no_picture: "{name} 파일은 읽을 수 있는 사진이 아닙니다. JPEG나 PNG 파일을 선택하거나 그 형식으로 저장하세요.",
    kept: "보관했습니다.", failed: "요청이 실패했습니다: {why}",
  },
};

export let language = localStorage.language || (navigator.language.startsWith("ko") ? "ko" : "en");

export const t = (key, values = {}) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Fill in the texts of every element below `root`: data-t names the key of its text, data-t-label that of its accessible name and tooltip.
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
